//! Paths of secrets as parts of a URL. Called with what people wrote; never lets a path leave its mount.

use sepal_plugin::Error;

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3) and `/`.
pub fn escape(path: &str) -> Result<String, Error> {
    let path = path.trim_matches('/');
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        let message = format!("`{path}` is no path: parts between slashes may not be empty, `.` or `..`");
        return Err(Error::misconfigured(message).code("vault.path"));
    }
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(out)
}
