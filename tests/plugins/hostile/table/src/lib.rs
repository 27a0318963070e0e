//! A sink with a table of functions that no guest may have: `build.rs` makes it so. It must not come to life.

use sepal_plugin::prelude::*;

#[derive(Deserialize)]
struct Config {}

struct Table;

impl Sink for Table {
    type Config = Config;

    fn open(_: Config, _: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn write(&mut self, _: &Batch) -> Result<Outcome, Error> {
        Ok(Outcome::delivered())
    }
}

sepal_plugin::sink!(Table);
