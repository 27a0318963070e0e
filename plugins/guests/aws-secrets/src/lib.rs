//! The resolver `aws-secrets`: values of AWS Secrets Manager (`GetSecretValue`).
//!
//! Requests are signed with Signature Version 4. The host makes the date's key of the secret access key, which never
//! comes here; the rest of the derivation is in `sigv4`. Temporary credentials do not work: their session token is part
//! of what is signed.

mod sigv4;

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_plugin::{prelude::*, time};
use serde_json::{Map, Value, json};

use sigv4::Signing;

const TARGET: &str = "secretsmanager.GetSecretValue";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// A secret of 64 KiB, its JSON escaped.
const ANSWER_BYTES: u32 = 512 << 10;

#[derive(Deserialize)]
struct Config {
    region: String,
    /// Else `https://secretsmanager.<region>.amazonaws.com`.
    endpoint: Option<String>,
    access_key_id: String,
    secret_access_key: SecretSlot,
}

#[derive(Deserialize)]
struct Options {
    /// Name or ARN.
    path: String,
    /// Of a value that is a JSON object.
    field: Option<String>,
    /// Id of a version.
    version: Option<String>,
    /// Else AWSCURRENT.
    stage: Option<String>,
}

struct AwsSecrets(Config);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretValue {
    secret_string: Option<String>,
    secret_binary: Option<String>,
    version_id: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(rename = "message", alias = "Message", default)]
    message: String,
}

impl Resolver for AwsSecrets {
    type Config = Config;
    type Options = Options;

    fn open(config: Config) -> Result<Self, Error> {
        Ok(Self(config))
    }

    /// Asks for a secret that nobody has: that AWS looks for it, or says that this key may not see it, is enough.
    fn check(config: Config) -> Result<(), Error> {
        match Self(config).get(&json!({ "SecretId": "sepal-plugin-check" })) {
            Err(error) if error.code.as_deref() != Some("aws.AccessDeniedException") => Err(error),
            _ => Ok(()),
        }
    }

    fn resolve(&mut self, request: &Request<Options>) -> Result<Answer, Error> {
        let options = &request.options;
        let mut body = json!({ "SecretId": options.path });
        for (name, value) in [("VersionId", &options.version), ("VersionStage", &options.stage)] {
            if let Some(value) = value {
                body[name] = Value::from(value.as_str());
            }
        }
        match self.get(&body)? {
            Some(value) => {
                Ok(Answer::unless_held(resolved(value, options)?, request.have_version.as_deref()))
            }
            None => Ok(Answer::NotFound),
        }
    }
}

impl AwsSecrets {
    /// `None`: there is no such secret or version.
    fn get(&self, body: &Value) -> Result<Option<SecretValue>, Error> {
        let default = || format!("https://secretsmanager.{}.amazonaws.com", self.0.region);
        let endpoint = self.0.endpoint.clone().unwrap_or_else(default);
        let host = host_header(&endpoint);
        let body = serde_json::to_vec(body)?;
        let signing = Signing {
            access_key_id: &self.0.access_key_id,
            region: &self.0.region,
            service: "secretsmanager",
            time: &time::Civil::of(time::unix_seconds()).basic(),
        };
        let headers = [
            ("content-type", CONTENT_TYPE),
            ("host", host),
            ("x-amz-date", signing.time),
            ("x-amz-target", TARGET),
        ];
        let date_key = self.0.secret_access_key.get()?.hmac_sha256(b"AWS4", signing.date().as_bytes());
        let authorization = signing.authorization("POST", "", &headers, &body, &date_key);
        let mut request = http::post(format!("{}/", endpoint.trim_end_matches('/')))
            .header("authorization", authorization)
            .max_response_bytes(ANSWER_BYTES)
            .body(body);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let response = request.send()?;
        if response.status == 200 {
            return response.json().map(Some);
        }
        refused(response)
    }
}

/// As an HTTP client writes it: without the scheme's own port.
fn host_header(endpoint: &str) -> &str {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "http" { ":80" } else { ":443" };
    host.strip_suffix(port).unwrap_or(host)
}

/// AWS answers most refusals with 400 and names them in the body.
fn refused(response: http::Response) -> Result<Option<SecretValue>, Error> {
    let Ok(Refusal { kind, message }) = response.json::<Refusal>() else {
        return Err(response
            .ok()
            .err()
            .unwrap_or_else(|| Error::transient("an empty answer").code("aws.answer")));
    };
    // `com.amazonaws…#ResourceNotFoundException` in some answers.
    let name = kind.rsplit('#').next().unwrap_or_default();
    let error_kind = match name {
        "ResourceNotFoundException" => return Ok(None),
        "AccessDeniedException"
        | "DecryptionFailure"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "UnrecognizedClientException" => ErrorKind::Unauthorized,
        "InternalServiceError" | "RequestLimitExceeded" | "ThrottlingException" => ErrorKind::Transient,
        "InvalidParameterException" | "InvalidRequestException" | "ValidationException" => {
            ErrorKind::Misconfigured
        }
        _ => match response.ok() {
            Ok(_) => ErrorKind::Transient,
            Err(error) => error.kind,
        },
    };
    Err(Error::new(error_kind, format!("AWS answered {name}: {message}")).code(format!("aws.{name}")))
}

fn resolved(value: SecretValue, options: &Options) -> Result<Resolved, Error> {
    let bytes = match (value.secret_string, value.secret_binary) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(binary)) => STANDARD
            .decode(binary)
            .map_err(|_| Error::transient("SecretBinary is not base64").code("aws.answer"))?,
        (None, None) => return Err(Error::transient("AWS answered without a value").code("aws.answer")),
    };
    let value_bytes = match &options.field {
        Some(name) => field(&bytes, name)?,
        None => bytes,
    };
    Ok(Resolved { value: value_bytes, version: value.version_id, ..Resolved::default() })
}

/// Errors name fields, never values.
fn field(bytes: &[u8], name: &str) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::misconfigured(why).code("aws.field");
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
        return Err(wrong(format!("the value is not a JSON object, so it has no field {name}")));
    };
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        Some(Value::Null) | None => {
            let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
            Err(wrong(format!("the value has no field {name}, but {known}")))
        }
        Some(other) => Ok(serde_json::to_vec(&other)?),
    }
}

sepal_plugin::resolver!(AwsSecrets);

#[cfg(test)]
mod tests;
