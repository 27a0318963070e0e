//! A manifest to sealed bytes and back.
//!
//! Called by `commit`. Never touches a file.

use sepal_crypto::{Aad, Key, KeyRing, OpenError, open, seal};
use sepal_types::TenantId;

use super::Manifest;

pub(crate) const HEADER_BYTES: usize = 40;
/// A store without a cipher, which only a benchmark makes, opens nowhere else.
const MAGIC: [u8; 8] = if cfg!(feature = "null-cipher") { *b"nullman!" } else { *b"sepalman" };
const VERSION: u16 = 2;
/// Without times, named snapshots and clones.
const VERSION_1: u16 = 1;
/// With tables that have CHECK or FOREIGN KEY constraints: a program that knows only the versions before would leave
/// these out.
const VERSION_3: u16 = 3;

/// The plaintext header, which is part of the associated data.
pub(super) fn header(tenant: TenantId, manifest: &Manifest) -> [u8; HEADER_BYTES] {
    let constrained = manifest.tables.iter().any(|table| !table.def.constraints.is_empty());
    versioned(if constrained { VERSION_3 } else { VERSION }, tenant, manifest.number)
}

fn versioned(version: u16, tenant: TenantId, number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&version.to_be_bytes());
    header[16..32].copy_from_slice(tenant.as_bytes());
    header[32..].copy_from_slice(&number.to_be_bytes());
    header
}

pub(super) fn encode(tenant: TenantId, tenant_key: &Key, manifest: &Manifest) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(manifest).map_err(|error| error.to_string())?;
    Ok(encode_text(&header(tenant, manifest), tenant_key, &text))
}

fn encode_text(header: &[u8; HEADER_BYTES], tenant_key: &Key, text: &[u8]) -> Vec<u8> {
    let sealed = seal(&key(tenant_key), &aad(header), text);
    [header.as_slice(), &sealed].concat()
}

/// A file as the program before wrote it.
#[cfg(test)]
pub(super) fn encode_version_1(tenant: TenantId, number: u64, tenant_key: &Key, text: &[u8]) -> Vec<u8> {
    encode_text(&versioned(VERSION_1, tenant, number), tenant_key, text)
}

/// Opens a file's bytes, which must be this tenant's manifest of this number.
pub(super) fn decode(
    tenant: TenantId,
    keys: &KeyRing,
    number: u64,
    bytes: &[u8],
) -> Result<Manifest, String> {
    let Some((found, sealed)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(format!("{} bytes are too few for a manifest", bytes.len()));
    };
    if found[..8] != MAGIC {
        return Err("it is not a manifest".to_owned());
    }
    let version = u16::from_be_bytes([found[8], found[9]]);
    let expected = versioned(version, tenant, number);
    if !(VERSION_1..=VERSION_3).contains(&version) || found[8..16] != expected[8..16] {
        return Err(format!("manifest version {version}, this program reads {VERSION_1} to {VERSION_3}"));
    }
    if *found != expected {
        return Err("it belongs to another tenant or number".to_owned());
    }
    // Which key of the ring it was sealed under, nothing says: there are few.
    let mut opened = Err(OpenError::NotAuthentic);
    for tenant_key in keys.keys() {
        opened = open(&key(tenant_key), &aad(found), sealed);
        if opened.is_ok() {
            break;
        }
    }
    let text = opened.map_err(|error| error.to_string())?;
    let mut manifest: Manifest = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if manifest.number != number {
        return Err(format!("it holds manifest {}", manifest.number));
    }
    manifest.infer_variable_bytes();
    Ok(manifest)
}

fn key(tenant_key: &Key) -> Key {
    tenant_key.derive("manifest", &[])
}

fn aad(header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    Aad::new("manifest 1").bytes(header).finish()
}

/// Bytes as hex digits in JSON.
pub(crate) mod hex {
    use sepal_crypto::{hex, unhex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let bytes = unhex(String::deserialize(from)?.as_bytes());
        bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| D::Error::custom("not pairs of hex digits"))
    }
}

/// File ids as their 32 hex digits, which are also their files' names.
pub(super) mod file_id {
    use sepal_types::FileId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(file: &FileId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&file.to_string())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FileId, D::Error> {
        FileId::parse(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("not a file id"))
    }
}
