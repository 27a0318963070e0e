//! What does a power cut lose?
//!
//! The data directory lies on an ext4 of its own, in a file. Under the load of `crash` the file system is shut down
//! the way a power cut does it (`EXT4_IOC_SHUTDOWN` without flushing its journal): from then on nothing reaches the
//! image, and what was not synced is gone. The server is killed, the image mounted again, and everything that was
//! acknowledged must be there. Needs root and a loop device. `SEPAL_POWER_CUTS` rounds, 3 without it.

use std::{
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::{
    crash::{Acknowledged, check, connect, doom, drop_old_batches, end_writers, set_up, start_writers},
    server::{Server, skip},
};

/// Sparse: it takes the room of what is in it. An hour of the past stays there.
const IMAGE_BYTES: u64 = 4 << 30;
/// `_IOR('X', 125, __u32)` of fs/ext4/ext4.h.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal is not flushed either.
const NO_LOG_FLUSH: u32 = 2;

/// A file system in a file.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// How often it was mounted.
    mounted: AtomicU32,
    /// Both lie in it.
    _directory: TempDir,
}

impl Disk {
    /// `None` where it cannot be mounted.
    fn make() -> Option<Disk> {
        let directory = TempDir::new().expect("a temporary directory");
        let disk = Disk {
            image: directory.path().join("image"),
            mount: directory.path().join("mount"),
            mounted: AtomicU32::new(0),
            _directory: directory,
        };
        fs::create_dir(&disk.mount).expect("a mount point");
        fs::File::create(&disk.image).expect("an image").set_len(IMAGE_BYTES).expect("its length");
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image).output();
        let made = made.is_ok_and(|output| output.status.success());
        (made && disk.try_mount()).then_some(disk)
    }

    /// A copy each time: the kernel keeps what was cut off for as long as some other process has it in its mounts, and
    /// would give the same dead file system for the same file again.
    fn try_mount(&self) -> bool {
        let number = self.mounted.fetch_add(1, Ordering::Relaxed);
        let (before, now) = (self.copy(number), self.copy(number + 1));
        let from = if number == 0 { &self.image } else { &before };
        let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(&now).output();
        if !copied.is_ok_and(|output| output.status.success()) {
            return false;
        }
        if number > 0 {
            let _ = fs::remove_file(before);
        }
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&now).arg(&self.mount).output();
        mounted.is_ok_and(|output| output.status.success())
    }

    fn copy(&self, number: u32) -> PathBuf {
        self.image.with_extension(number.to_string())
    }

    /// From here on nothing reaches the image.
    fn cut(&self) {
        let directory = fs::File::open(&self.mount).expect("the mount point");
        let flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the request reads one u32 from the pointer, which outlives the call.
        let done = unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const flags) };
        assert_eq!(done, 0, "EXT4_IOC_SHUTDOWN: {}", io::Error::last_os_error());
    }

    /// The machine comes back: the journal is replayed.
    fn restore(&self) {
        for _ in 0..100 {
            if unmount(&self.mount) {
                assert!(self.try_mount(), "the image does not mount any more");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} stays busy", self.mount.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

fn unmount(path: &Path) -> bool {
    Command::new("umount").arg(path).output().is_ok_and(|output| output.status.success())
}

fn rounds() -> u64 {
    std::env::var("SEPAL_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_power_cuts() {
    let Some(disk) = Disk::make() else {
        skip("an ext4 in a file needs root, a loop device and mkfs.ext4: power cuts were not tested");
        return;
    };
    let mut random = StdRng::seed_from_u64(rand::random());
    let directory = TempDir::new_in(&disk.mount).expect("a directory on the disk");
    let mut server = Server::start_in(directory, &[]);
    let key = server.tenant("acme");
    set_up(&connect(&server, &key).await).await;
    let known = Arc::new(Acknowledged::default());
    for round in 0..i64::try_from(rounds()).expect("few rounds") {
        doom(&connect(&server, &key).await, round).await;
        let moment = Duration::from_millis(random.random_range(20..2_500));
        let writers = start_writers(&server, &key, &known, round).await;
        tokio::time::sleep(moment).await;
        known.excuse();
        disk.cut();
        server.kill();
        end_writers(writers, &known, &format!("round {round}")).await;
        disk.restore();
        known.go_on();
        server.start_again();
        let client = connect(&server, &key).await;
        check(&client, &known, &format!("round {round}, cut after {moment:?}")).await;
        drop_old_batches(&client, &known).await;
        eprintln!("round {round}: cut after {moment:?}, everything is there");
    }
    println!("{} power cuts: {}", rounds(), known.told());
    // Before the disk under it.
    drop(server);
}
