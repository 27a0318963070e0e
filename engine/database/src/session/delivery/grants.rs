//! GRANT USAGE and REVOKE USAGE: whose sinks a secret or certificate may be handed to.

use sepal_control::{Grantable, PUBLIC};
use sepal_query::sql::delivery::{Grantee, ObjectKind};
use sepal_types::{Error, Result};

use super::{Outcome, Session, done};

impl Session {
    pub(super) async fn grant(
        &mut self,
        kind: ObjectKind,
        name: &str,
        grantee: &Grantee,
        give: bool,
    ) -> Result<Outcome> {
        let tag = if give { "GRANT" } else { "REVOKE" };
        let grantable = match kind {
            ObjectKind::Secret => Grantable::Secret,
            ObjectKind::Certificate => Grantable::Certificate,
            ObjectKind::Pipeline
            | ObjectKind::Plugin
            | ObjectKind::Resolver
            | ObjectKind::Sink
            | ObjectKind::TrustKey => {
                let what = kind.noun();
                return Err(Error::unsupported(format!("{tag} USAGE ON {} is not supported", kind.keyword()))
                    .with_hint(format!(
                        "Every key that may write in this environment may use a {what}; what is granted is secrets and \
                         certificates."
                    )));
            }
        };
        self.check_no_block(tag)?;
        self.check_owner(grantable, name).await?;
        let name = name.to_owned();
        let grantee = match grantee {
            Grantee::Key(id) => id.clone(),
            Grantee::Public => PUBLIC.to_owned(),
        };
        self.ask_control(move |control, scope| {
            if give {
                control.grant_usage(scope, grantable, &name, &grantee)
            } else {
                control.revoke_usage(scope, grantable, &name, &grantee)
            }
        })
        .await?;
        Ok(done(tag))
    }
}
