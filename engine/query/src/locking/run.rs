//! One run of a locking query: the rows as the client sees them, and the ids of what is to be locked.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
        compute::cast,
        datatypes::{SchemaRef, UInt64Type},
    },
    scalar::ScalarValue,
};
use roaring::RoaringTreemap;
use sepal_types::Result;

use super::LockingQuery;
use crate::{output::conform, planner::Engine, table::ShownRows};

/// What a run gave.
#[derive(Debug)]
pub struct Found(Vec<RecordBatch>);

impl LockingQuery {
    /// Runs the plan to its end, in the snapshot of its context.
    pub async fn run(&self, engine: &Engine, values: &[ScalarValue]) -> Result<Found> {
        if let Some(point) = &self.point
            && let Some(batch) = point.find(engine, values)?
        {
            return Ok(Found(vec![batch]));
        }
        Ok(Found(engine.collect(&self.plan, values.to_vec()).await?))
    }

    /// From now on the relation at this place gives no rows but `only`, if those are named, and none of `hidden`.
    pub fn show(&self, place: usize, only: Option<RoaringTreemap>, hidden: RoaringTreemap) {
        if let Some(relation) = self.relations.get(place) {
            relation.filter.set(ShownRows { only, hidden });
        }
    }

    /// The rows of the relation at this place that have a part in what was found.
    pub fn row_ids(&self, found: &Found, place: usize) -> RoaringTreemap {
        let column = self.columns.len() + place;
        found
            .0
            .iter()
            .flat_map(|batch| batch.column(column).as_primitive::<UInt64Type>().iter().flatten())
            .collect()
    }

    /// What the client sees.
    pub fn rows(&self, found: &Found) -> Result<Vec<RecordBatch>> {
        found.0.iter().map(|batch| conform(batch.clone(), &self.columns)).collect()
    }

    /// The same for a table with this schema.
    pub fn rows_as(&self, found: &Found, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let batch = |batch: &RecordBatch| {
            let fitted = batch.columns().iter().zip(schema.fields()).map(|(array, field)| {
                if array.data_type() == field.data_type() {
                    Ok(Arc::clone(array))
                } else {
                    cast(array, field.data_type()).map_err(crate::error::arrow)
                }
            });
            let arrays = fitted.collect::<Result<Vec<ArrayRef>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
                .map_err(crate::error::arrow)
        };
        found.0.iter().map(batch).collect()
    }
}
