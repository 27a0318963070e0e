//! AWS Signature Version 4 over headers, from the date's key on (docs.aws.amazon.com, "Create a signed AWS API
//! request"). Does no I/O and sees no secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What a signature is made for.
pub struct Signing<'a> {
    pub access_key_id: &'a str,
    pub region: &'a str,
    pub service: &'a str,
    /// `20150830T123600Z`, the value of `x-amz-date`.
    pub time: &'a str,
}

impl Signing<'_> {
    /// `20150830`; HMAC of it under `AWS4` and the secret access key is `date_key`.
    pub fn date(&self) -> &str {
        self.time.split('T').next().unwrap_or_default()
    }

    /// The header `authorization` of a request for `/`. `headers` are lower-case, sorted, and all that is signed;
    /// `query` is in canonical form.
    pub fn authorization(
        &self,
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        date_key: &[u8],
    ) -> String {
        let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let request = format!("{method}\n/\n{query}\n{lines}\n{signed}\n{}", hex(&Sha256::digest(body)));
        let scope = format!("{}/{}/{}/aws4_request", self.date(), self.region, self.service);
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.time, hex(&Sha256::digest(request.as_bytes())));
        let region_key = hmac(date_key, self.region.as_bytes());
        let service_key = hmac(&region_key, self.service.as_bytes());
        let signing_key = hmac(&service_key, b"aws4_request");
        let signature = hex(&hmac(&signing_key, to_sign.as_bytes()));
        let credential = format!("{}/{scope}", self.access_key_id);
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}")
    }
}

pub fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
