//! Replacing keys of an open tenant, in the background: the tenant's key to its end, its files' keys a segment at a time.
//!
//! Nothing is remembered here of what is left to do. Control says which keys there are, the store what is under which: so
//! what a crash cut short goes on when the tenant is opened the next time.

use std::{sync::Arc, time::Duration};

use sepal_control::{AuditAction, ControlError, NewAuditEvent};
use sepal_storage::{FileRotation, KeyUse, StoreError};
use sepal_types::Result;
use serde_json::json;

use super::{SegmentIndexer, compaction::Paced};
use crate::{background::TaskKind, blocking::blocking, delivery::now_us, tenant::OpenTenant};

/// How long to wait for whoever needs what is under older keys, and after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// What comes after a pass.
enum Pass {
    Over,
    /// After that time.
    Again(Duration),
}

/// Runs until the tenant is closed.
pub(super) async fn rotate(tenant: &Arc<OpenTenant>) {
    loop {
        let pause = if tenant.rotation.is_due(&tenant.store) { again(tenant).await } else { None };
        if tenant.is_closed() {
            return;
        }
        tokio::select! {
            () = tenant.until_closed() => return,
            () = tenant.rotation.asked() => {}
            () = tokio::time::sleep(pause.unwrap_or(AGAIN)), if pause.is_some() => {}
        }
    }
}

/// A pass. Gives after what time comes another one.
async fn again(tenant: &Arc<OpenTenant>) -> Option<Duration> {
    tenant.rotation.begin();
    match pass(tenant).await {
        Ok(Pass::Over) => {
            tenant.rotation.end();
            None
        }
        Ok(Pass::Again(pause)) => Some(pause),
        Err(error) => {
            if !tenant.is_closed() {
                tracing::error!(tenant = %tenant.id, %error, "keys are not replaced yet; it will be tried again");
                tenant.rotation.fail(&error);
            }
            Some(AGAIN)
        }
    }
}

/// The tenant's key first: that takes a flush at most. Copies are as slow as compactions, and have their threads.
async fn pass(tenant: &Arc<OpenTenant>) -> Result<Pass> {
    let worker = Arc::clone(tenant);
    let (left, is_over, copying) = blocking("the rotation of a tenant's keys", move || {
        let (left, is_over) = renew_key(&worker)?;
        Ok((left, is_over, worker.store.file_rotation()?.running))
    })
    .await?;
    tenant.rotation.note(left);
    if !copying {
        return Ok(if is_over { Pass::Over } else { Pass::Again(AGAIN) });
    }
    let worker = Arc::clone(tenant);
    let copied = tenant.background.compactions.run(tenant.until_closed(), move || copy_one(&worker)).await;
    // It is being closed.
    let Some(copied) = copied else { return Ok(Pass::Over) };
    copied.flatten()
}

/// One segment under another key, at the rate that all tenants' compactions share.
fn copy_one(tenant: &OpenTenant) -> Result<Pass> {
    let stop = || tenant.is_closed();
    // Neither a VACUUM nor a large merge is waited for: others need the thread.
    if tenant.tasks.has_merge_of_session() {
        return Ok(Pass::Again(AGAIN));
    }
    let task = tenant.tasks.post(0, TaskKind::FileKeys, None, now_us());
    let throttle = Some(&*tenant.background.throttle);
    let pace = Paced { throttle, waits: false, ..Paced::new(tenant, &task, &stop) };
    let step = match tenant.store.rotate_file_keys(&SegmentIndexer::of_flush(tenant, &stop), &pace) {
        Err(StoreError::Stopped) if !stop() => return Ok(Pass::Again(AGAIN)),
        step => step?,
    };
    drop(pace);
    drop(task);
    tenant.count_files();
    if !step.rotation.running {
        audit(tenant, AuditAction::FileKeysRotated, &step.rotation)?;
    } else if step.bytes_written == 0 {
        return Ok(Pass::Again(AGAIN));
    }
    Ok(Pass::Again(Duration::ZERO))
}

/// Puts everything under the newest of the tenant's keys, and destroys the others when nothing needs them any more:
/// beside what does stands whether they are.
fn renew_key(tenant: &OpenTenant) -> Result<(KeyUse, bool)> {
    let (store, control) = (&tenant.store, &tenant.delivery.control);
    if control.tenant_key_status(tenant.id)?.len() < 2 && !store.has_older_keys() {
        return Ok((KeyUse::default(), true));
    }
    // In this order: of the keys that are read now, none that is destroyed below is the newest.
    let epoch = control.tenant_key_epoch(tenant.id)?;
    let keys = control.tenant_keys(tenant.id)?;
    let left = store.rewrap(keys, &SegmentIndexer::of_flush(tenant, &|| tenant.is_closed()))?;
    tenant.count_files();
    if left.files() > 0 {
        return Ok((left, false));
    }
    let retired = match control.retire_tenant_keys(tenant.id, epoch) {
        Err(ControlError::Busy(why)) => {
            tracing::debug!(tenant = %tenant.id, why = %why, "older keys of the tenant stay for now");
            return Ok((left, false));
        }
        retired => retired?,
    };
    store.forget_older_keys();
    tracing::info!(tenant = %tenant.id, epoch, retired, "older keys of the tenant are destroyed");
    Ok((left, true))
}

/// Begins to give the tenant's files other keys. Blocking.
pub fn begin_files(tenant: &OpenTenant) -> Result<()> {
    let before = tenant.store.file_rotation()?;
    let begun =
        tenant.store.begin_file_rotation(&SegmentIndexer::of_flush(tenant, &|| tenant.is_closed()))?;
    tenant.count_files();
    if before.generation != begun.generation {
        audit(tenant, AuditAction::FileKeysRotationBegun, &begun)?;
    }
    Ok(())
}

fn audit(tenant: &OpenTenant, action: AuditAction, rotation: &FileRotation) -> Result<()> {
    let event = NewAuditEvent::new(action, "file keys")
        .of(tenant.id)
        .with(json!({ "generation": rotation.generation }));
    tenant.delivery.control.audit(event)?;
    Ok(())
}
