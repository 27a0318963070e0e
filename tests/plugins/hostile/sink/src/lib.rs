//! A sink that does what no sink should; the option `mode` says what. `tests/plugins` looks on.
//!
//! `deliver` behaves: it POSTs the batch with the token. The modes of `breaks` end badly. `probe` tries everything
//! that is forbidden and POSTs what came of it.

mod breaks;
mod probes;

use sepal_plugin::{http::Request, prelude::*};

/// Which version of the component this is: the tests make another one by writing over it.
#[used]
static BUILD: [u8; 16] = *b"hostile-build-01";

#[derive(Deserialize)]
pub struct Config {
    mode: String,
    url: String,
    /// Another host that ALLOW HOSTS grants, and the token does not.
    other: Option<String>,
    /// Where nobody may go, on several names of this machine.
    forbidden_port: Option<u16>,
    token: Option<SecretSlot>,
    /// For bodies.
    key: Option<SecretSlot>,
}

struct Hostile(Config);

impl Sink for Hostile {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn check(config: Config, _: &Context) -> Result<(), Error> {
        match config.mode.as_str() {
            "check-loop" => breaks::spin(),
            "check-panic" => panic!("in check"),
            _ => Ok(()),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        match self.0.mode.as_str() {
            "deliver" => deliver(&self.0, batch),
            "probe" => probes::run(&self.0),
            mode => breaks::run(mode, &self.0, batch),
        }
    }
}

fn deliver(config: &Config, batch: &Batch) -> Result<Outcome, Error> {
    let token = SecretSlot::optional(config.token.as_ref())?;
    let mut request = Request::new("POST", &config.url).header("x-build", build()).body(batch.payload());
    if let Some(token) = &token {
        request = request.bearer(token);
    }
    request.send()?.ok()?;
    Ok(Outcome::delivered())
}

fn build() -> String {
    String::from_utf8_lossy(std::hint::black_box(&BUILD)).into_owned()
}

sepal_plugin::sink!(Hostile);
