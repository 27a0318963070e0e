//! What a plugin tells its operators: log lines and metrics, both limited by the host. Rows, errors, latencies and
//! lag are counted by the host already.

use crate::bindings::sink::sepal::plugin::telemetry;
pub use crate::bindings::sink::sepal::plugin::telemetry::Level;

/// [`crate::log!`] is the short way.
pub fn log(level: Level, message: &str, fields: &[(String, String)]) {
    telemetry::log(level, message, fields);
}

/// Appears as `plugin_<name>`.
pub fn counter_add(name: &str, value: u32) {
    telemetry::counter_add(name, value);
}

/// Appears as `plugin_<name>`.
pub fn gauge_set(name: &str, value: f64) {
    telemetry::gauge_set(name, value);
}

/// `log!(Info, "text")`, `log!(Warn, "text"; field = value, other = value)`: levels are those of
/// [`Level`](crate::telemetry::Level), values are anything that can be displayed.
#[macro_export]
macro_rules! log {
    ($level:ident, $message:expr $(; $($field:ident = $value:expr),+ $(,)?)?) => {
        $crate::telemetry::log(
            $crate::telemetry::Level::$level,
            ::std::convert::AsRef::<str>::as_ref(&$message),
            &[$($((::std::string::String::from(stringify!($field)), ::std::string::ToString::to_string(&$value))),+)?],
        )
    };
}
