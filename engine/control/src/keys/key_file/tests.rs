//! Which files are taken for a key's, and what the refusals tell the operator.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::ControlError;

fn write(directory: &TempDir, content: &str, mode: u32) -> PathBuf {
    let path = directory.path().join("root.key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn created_file_is_private_and_reads_back() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("root.key");
    let key = create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.len(), text.ends_with('\n')), (65, true));
    assert_eq!(read(&path).unwrap().expose(), key.expose());

    assert!(matches!(create(&path), Err(RootKeyError::Exists { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "an existing key is never overwritten");
}

#[test]
fn wide_modes_are_refused_with_the_command_that_mends_them() {
    let directory = TempDir::new().unwrap();
    let digits = "ab".repeat(32);
    for mode in [0o644, 0o640, 0o620, 0o601, 0o700, 0o4600] {
        let path = write(&directory, &digits, mode);
        let error = read(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::ModeTooWide { mode: found, .. } if found == mode), "{mode:o}");
        let message = error.to_string();
        assert!(message.contains(&format!("{mode:04o}")), "{message}");
        assert!(message.ends_with(&format!("chmod 600 {}", path.display())), "{message}");
        let error = ControlError::from(RootKeyError::from(error));
        assert!(error.to_string().starts_with("the root key file /"), "{error}");
        assert!(error.is_configuration());
        assert_eq!(sepal_types::Error::from(error).state().code(), "28000");
    }
    for mode in [0o600, 0o400] {
        assert!(read(&write(&directory, &digits, mode)).is_ok(), "{mode:o}");
        fs::remove_file(directory.path().join("root.key")).unwrap();
    }
}

#[test]
fn content_must_be_64_digits() {
    let directory = TempDir::new().unwrap();
    let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
    assert!(read(&write(&directory, &digits, 0o600)).is_ok(), "the newline may be missing");
    assert!(read(&write(&directory, &format!("{digits}\n"), 0o600)).is_ok());
    for content in ["", "\n", &digits[1..], &format!("{digits}0"), &format!("{digits}\n\n"), &"g".repeat(64)]
    {
        let error = read(&write(&directory, content, 0o600)).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed { .. }), "{content:?}");
        assert!(content.len() < 8 || !error.to_string().contains(&content[..8]), "the content is not shown");
    }
}

#[test]
fn missing_files_and_directories() {
    let directory = TempDir::new().unwrap();
    assert!(matches!(read(&directory.path().join("none")), Err(KeyFileError::Unreadable { .. })));
    assert!(matches!(read(directory.path()), Err(KeyFileError::NotAFile { .. })));
}
