//! Whose failure it is. One tenant's must not keep the others from their backup, restore or verification: its own
//! provider may refuse at any time, and its files may be damaged.

use sepal_database::{Error, ErrorKind};

use crate::{identity, repository::Repository};

#[derive(Debug)]
pub(crate) enum Failure {
    /// Of what belongs to the tenant: the others go on.
    Tenant(Error),
    /// The repository's, this disk's, or the wish of whoever cancelled it.
    All(Error),
}

impl Failure {
    /// Of reading or changing one object of a tenant: what it holds is the tenant's, that it is not to be had is not.
    pub(crate) fn of_object(error: Error) -> Self {
        if error.kind() == ErrorKind::Corrupt { Self::Tenant(error) } else { Self::All(error) }
    }

    /// Of fetching one object of a tenant. A repository that answers otherwise has lost this object: a disk does so
    /// with an error, not with other bytes.
    pub(crate) async fn of_fetching(error: Error, repository: &Repository) -> Self {
        let answers =
            error.kind() == ErrorKind::Corrupt || identity::is_made(repository).await.unwrap_or(false);
        if answers { Self::Tenant(error) } else { Self::All(error) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Tenant(error) | Failure::All(error) => error,
        }
    }
}
