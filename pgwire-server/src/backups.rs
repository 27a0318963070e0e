//! Backups of this server: the keeper that the settings ask for, or one that the first `sepal backup create
//! --repository` made, and what monitors see of it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{IntGauge, Registry};
use sepal_backup::{Counted, CreateOptions, Keeper, Location, Retention, Settings, Source};
use sepal_database::{Database, Error, Result, SqlState};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where no repository is set up the log is not archived: nobody would be told that it stopped with the next start.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// How often monitors' figures are brought up to date.
const REFRESH: Duration = Duration::from_secs(5);

/// See the module.
pub struct Backups {
    database: Arc<Database>,
    keeper: OnceLock<(Arc<Keeper>, Location)>,
    gauges: Gauges,
    stop: CancellationToken,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

struct Gauges {
    last_backup: IntGauge,
    last_verified: IntGauge,
    archived: IntGauge,
    failing: IntGauge,
    gaps: IntGauge,
}

impl Backups {
    /// Starts what the settings ask for. Must be called within a runtime.
    pub fn start(
        database: Arc<Database>,
        settings: Option<Settings>,
        registry: &Registry,
    ) -> Result<Arc<Self>> {
        let gauges = Gauges::register(registry)
            .map_err(|error| Error::bug(format!("the figures of backups: {error}")))?;
        let backups = Arc::new(Self {
            database,
            keeper: OnceLock::new(),
            gauges,
            stop: CancellationToken::new(),
            tasks: parking_lot::Mutex::default(),
        });
        if let Some(settings) = settings {
            backups.begin(settings)?;
        }
        let (watched, stop) = (Arc::clone(&backups), backups.stop.clone());
        tokio::spawn(async move {
            while tokio::time::timeout(REFRESH, stop.cancelled()).await.is_err() {
                watched.refresh();
            }
        });
        Ok(backups)
    }

    /// Errors: 55000 where there is none.
    pub fn keeper(&self) -> Result<&Arc<Keeper>> {
        self.keeper.get().map(|(keeper, _)| keeper).ok_or_else(|| {
            Error::new(SqlState::ObjectNotInPrerequisiteState, "this server makes no backups").with_hint(
                "Set backup_repository (SEPAL_BACKUP_REPOSITORY, --backup-repository) to a directory or \
                 s3://bucket/prefix, or name one with `sepal backup create --repository`.",
            )
        })
    }

    /// Begins a backup and gives its number.
    pub fn create(&self, repository: Option<&str>, options: CreateOptions) -> Result<u64> {
        if let Some(repository) = repository {
            let wanted: Location = repository.parse()?;
            match self.keeper.get() {
                None => self.begin(by_hand(wanted))?,
                Some((_, location)) if *location == wanted => {}
                Some((_, location)) => {
                    return Err(Error::new(
                        SqlState::ObjectInUse,
                        format!("this server backs up to {location}, not to {wanted}"),
                    )
                    .with_hint("Copies of a repository are made by copying it."));
                }
            }
        }
        self.keeper()?.ask(options)
    }

    /// What a day's census says.
    pub async fn census(&self, day: &str, tenant: Option<&str>) -> Result<Vec<Counted>> {
        let keeper = self.keeper()?;
        let mut counted = sepal_backup::read_census(keeper.source(), keeper.repository(), day).await?;
        if let Some(tenant) = tenant {
            let is_it = |counted: &Counted| {
                let then = counted.inventory.as_ref().is_some_and(|known| known.name == tenant);
                then || counted.name.as_deref() == Some(tenant)
            };
            counted.retain(is_it);
        }
        Ok(counted)
    }

    /// Ends what runs, after the last client: what they committed is archived before.
    pub async fn finish(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(problem) = task.await {
                tracing::error!(%problem, "the keeper of backups failed");
            }
        }
    }

    fn begin(&self, settings: Settings) -> Result<()> {
        let location = settings.location.clone();
        let keeper = Keeper::new(Source::new(Arc::clone(&self.database)), settings)?;
        let copies: Arc<Keeper> = Arc::clone(&keeper);
        self.database.set_key_copies(copies);
        if self.keeper.set((Arc::clone(&keeper), location)).is_err() {
            return Err(Error::new(SqlState::ObjectInUse, "another backup was begun at the same moment"));
        }
        self.tasks.lock().push(tokio::spawn(keeper.run(self.stop.clone())));
        Ok(())
    }

    fn refresh(&self) {
        let Some((keeper, _)) = self.keeper.get() else { return };
        let status = keeper.status();
        let seconds = |us: Option<i64>| us.map_or(0, |us| us / 1_000_000);
        self.gauges.last_backup.set(seconds(status.last_backup_us));
        self.gauges.last_verified.set(seconds(status.last_verified_us));
        self.gauges.archived.set(seconds(status.archive.caught_up_us));
        self.gauges.failing.set(i64::from(status.last_error.is_some() || status.archive.error.is_some()));
        self.gauges.gaps.set(i64::try_from(status.archive.gaps).unwrap_or(i64::MAX));
    }
}

/// For a repository that only the command line named.
fn by_hand(location: Location) -> Settings {
    Settings {
        location,
        archive: NEVER,
        schedule: None,
        retention: Retention::default(),
        verify_days: 0,
        alert_days: 0,
        bytes_per_second: None,
    }
}

impl Gauges {
    fn register(registry: &Registry) -> std::result::Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            last_backup: gauge(
                "sepal_backup_last_seconds",
                "When the newest backup began, in seconds since 1970; 0 for never",
            )?,
            last_verified: gauge(
                "sepal_backup_last_verified_seconds",
                "When a backup was last restored to the side and found good; 0 for never",
            )?,
            archived: gauge(
                "sepal_backup_archived_seconds",
                "When all of the log was last in the backup repository; 0 for never",
            )?,
            failing: gauge("sepal_backup_failing", "1 while the last backup or archiving did not work")?,
            gaps: gauge("sepal_backup_gaps", "How often the log was let go before it was archived")?,
        })
    }
}
