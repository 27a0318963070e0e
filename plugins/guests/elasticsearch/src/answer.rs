//! What Elasticsearch answers to a bulk request, and the outcome that follows. Called by the sink, does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use sepal_plugin::{BadRow, Error, ErrorKind, Outcome, http::HttpStatus};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct BulkAnswer {
    errors: bool,
    /// One for each action, in order: `{"index":{"status":201}}`.
    #[serde(default)]
    items: Vec<BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl BulkAnswer {
    /// `ids`: index of the row and `_id` of each action; `bad`: rows that were not sent.
    ///
    /// Later rows of a document go again with an earlier one that has to: alone, the earlier one would undo them.
    pub fn outcome(self, ids: &[(u32, String)], mut bad: Vec<BadRow>) -> Result<Outcome, Error> {
        if !self.errors {
            return Ok(Outcome::Durable(bad));
        }
        if self.items.len() != ids.len() {
            let message = format!("{} actions were sent, {} answered", ids.len(), self.items.len());
            return Err(Error::transient(message).code("elasticsearch.answer"));
        }
        let mut again = Vec::new();
        let mut documents_again = BTreeSet::new();
        for (item, (index, id)) in self.items.into_iter().zip(ids) {
            let (action, item) = item.into_iter().next().unwrap_or_else(|| (String::new(), Item::unknown()));
            // A document that is gone already is deleted.
            let done = action == "delete" && item.status == 404;
            let kind = HttpStatus(item.status).classify().filter(|_| !done);
            if documents_again.contains(id) {
                again.push(*index);
                continue;
            }
            match kind {
                None => {}
                Some(ErrorKind::Unauthorized | ErrorKind::Misconfigured) => return Err(item.into_error()),
                Some(ErrorKind::Rejected) => bad.push(item.into_bad_row(*index)),
                Some(_) => {
                    again.push(*index);
                    documents_again.insert(id);
                }
            }
        }
        if again.is_empty() {
            bad.sort_by_key(|row| row.index);
            return Ok(Outcome::Durable(bad));
        }
        // Rows that are listed nowhere count as delivered; the bad ones are told apart again next time.
        again.extend(bad.iter().map(|row| row.index));
        again.sort_unstable();
        Ok(Outcome::RetryRows(again))
    }
}

impl Item {
    const fn unknown() -> Self {
        Self { status: 500, error: None }
    }

    fn describe(&self) -> String {
        match &self.error {
            Some(error) => format!("{}: {}", error.kind, error.reason),
            None => format!("status {}", self.status),
        }
    }

    fn into_bad_row(self, index: u32) -> BadRow {
        let message = self.describe();
        let code = self
            .error
            .map_or_else(|| format!("http.{}", self.status), |error| format!("elasticsearch.{}", error.kind));
        BadRow { index, code: Some(code), message }
    }

    fn into_error(self) -> Error {
        let kind = HttpStatus(self.status).classify().unwrap_or(ErrorKind::Internal);
        Error::new(kind, self.describe()).code(format!("http.{}", self.status))
    }
}
