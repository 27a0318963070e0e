//! CREATE CERTIFICATE and ALTER CERTIFICATE. That key and chain belong together is judged by control.

use sepal_control::{Grantable, NewCertificate, SecretName};
use sepal_query::sql::delivery::{ObjectKind, Value};
use sepal_types::Result;

use super::{Outcome, Session, done, duplicate, values::Bound};

impl Session {
    pub(super) async fn create_certificate(
        &mut self,
        name: &str,
        certificate: &Value,
        key: &Value,
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        self.check_no_block("CREATE CERTIFICATE")?;
        let (parsed, owner) = (SecretName::parse(name)?, self.key_id());
        let chain = bound.text(certificate, "the certificate")?;
        let pem = bound.text(key, "the certificate's key")?;
        let created = self.ask_control(move |control, scope| {
            if control.certificate(scope, &parsed)?.is_some() {
                return Ok(false);
            }
            let new = NewCertificate { name: &parsed, owner: &owner, chain_pem: &chain, key_pem: &pem };
            control.create_certificate(scope, new).map(|_| true)
        });
        if !created.await? {
            return Err(duplicate(ObjectKind::Certificate, name));
        }
        self.warn_of_key(name, key);
        Ok(done("CREATE CERTIFICATE"))
    }

    pub(super) async fn alter_certificate(
        &mut self,
        name: &str,
        certificate: &Value,
        key: &Value,
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        self.check_no_block("ALTER CERTIFICATE")?;
        self.check_owner(Grantable::Certificate, name).await?;
        let chain = bound.text(certificate, "the certificate")?;
        let pem = bound.text(key, "the certificate's key")?;
        let asked = name.to_owned();
        let set =
            self.ask_control(move |control, scope| control.set_certificate(scope, &asked, &chain, &pem));
        set.await?;
        self.warn_of_key(name, key);
        Ok(done("ALTER CERTIFICATE"))
    }

    fn warn_of_key(&mut self, name: &str, key: &Value) {
        if matches!(key, Value::Literal(_)) {
            self.warn_of_text(name, "the certificate's key");
        }
    }
}
