//! Floats as Postgres prints them since version 12: the shortest digits that read back to the same value.
//!
//! Used for query results, vector text and COPY. Postgres switches to an exponent below 1e-4 and from 1e15
//! (`float8`) or 1e6 (`float4`) on, with at least two exponent digits (`src/common/d2s.c`, `f2s.c`).

/// `float8` as text.
pub fn format_float8(value: f64, out: &mut String) {
    if push_special(value.is_nan(), value.is_infinite(), value.is_sign_negative(), out) {
        return;
    }
    push_shortest(&format!("{value:e}"), 15, out);
}

/// `float4` as text.
pub fn format_float4(value: f32, out: &mut String) {
    if push_special(value.is_nan(), value.is_infinite(), value.is_sign_negative(), out) {
        return;
    }
    push_shortest(&format!("{value:e}"), 6, out);
}

fn push_special(nan: bool, infinite: bool, negative: bool, out: &mut String) -> bool {
    if nan {
        out.push_str("NaN");
    } else if infinite {
        out.push_str(if negative { "-Infinity" } else { "Infinity" });
    }
    nan || infinite
}

/// Rewrites Rust's shortest scientific form (`-1.25e-7`) into Postgres' layout.
fn push_shortest(scientific: &str, max_plain_exponent: i32, out: &mut String) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    out.push_str(sign);
    if exponent < -4 || exponent >= max_plain_exponent {
        out.push_str(mantissa);
        out.push_str(if exponent < 0 { "e-" } else { "e+" });
        let magnitude = exponent.unsigned_abs();
        if magnitude < 10 {
            out.push('0');
        }
        out.push_str(&magnitude.to_string());
        return;
    }
    let digits: String = mantissa.chars().filter(|digit| *digit != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        (1..exponent.unsigned_abs()).for_each(|_| out.push('0'));
        out.push_str(&digits);
        return;
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.push_str(&digits);
        (digits.len()..whole).for_each(|_| out.push('0'));
    } else {
        out.push_str(&digits[..whole]);
        out.push('.');
        out.push_str(&digits[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f8(value: f64) -> String {
        let mut out = String::new();
        format_float8(value, &mut out);
        out
    }

    fn f4(value: f32) -> String {
        let mut out = String::new();
        format_float4(value, &mut out);
        out
    }

    /// Expected strings were printed by PostgreSQL 15.
    #[test]
    fn matches_postgres() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456789012345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (1e100, "1e+100"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (-12.75, "-12.75"),
            (0.015, "0.015"),
        ];
        for (value, text) in cases {
            assert_eq!(f8(value), text);
        }
        let cases = [
            (0.1f32, "0.1"),
            (1e6, "1e+06"),
            (123456.0, "123456"),
            (1e-5, "1e-05"),
            (16777216.0, "1.6777216e+07"),
        ];
        for (value, text) in cases {
            assert_eq!(f4(value), text);
        }
    }
}
