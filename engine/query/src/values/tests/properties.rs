//! For every type: what is written is read back as it was, and no bytes at all make the readers panic.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
        StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    datatypes::IntervalMonthDayNano,
};
use proptest::prelude::*;
use sepal_types::SqlType;

use super::{super::Builder, decode_binary, decode_text, printed, sent, ty, unhex};

/// A type and a value of it.
fn typed_value() -> impl Strategy<Value = (SqlType, ArrayRef)> {
    prop_oneof![
        any::<bool>().prop_map(|v| (SqlType::Bool, Arc::new(BooleanArray::from(vec![v])) as ArrayRef)),
        any::<i16>().prop_map(|v| (SqlType::Int2, Arc::new(Int16Array::from(vec![v])) as ArrayRef)),
        any::<i32>().prop_map(|v| (SqlType::Int4, Arc::new(Int32Array::from(vec![v])) as ArrayRef)),
        any::<i64>().prop_map(|v| (SqlType::Int8, Arc::new(Int64Array::from(vec![v])) as ArrayRef)),
        any::<u32>().prop_map(|v| (SqlType::Oid, Arc::new(Int64Array::from(vec![i64::from(v)])) as ArrayRef)),
        any::<f32>().prop_map(|v| (SqlType::Float4, Arc::new(Float32Array::from(vec![v])) as ArrayRef)),
        any::<f64>().prop_map(|v| (SqlType::Float8, Arc::new(Float64Array::from(vec![v])) as ArrayRef)),
        decimal(),
        characters().prop_map(|v| (SqlType::Text, Arc::new(StringArray::from(vec![v])) as ArrayRef)),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|v| (SqlType::Bytea, Arc::new(BinaryArray::from_vec(vec![v.as_slice()])) as ArrayRef)),
        any::<[u8; 16]>().prop_map(|v| {
            let array = FixedSizeBinaryArray::try_from_iter(std::iter::once(v)).unwrap();
            (SqlType::Uuid, Arc::new(array) as ArrayRef)
        }),
        (-2_440_588..2_145_042_541)
            .prop_map(|v| (SqlType::Date, Arc::new(Date32Array::from(vec![v])) as ArrayRef)),
        (0..=86_400_000_000i64)
            .prop_map(|v| (SqlType::Time, Arc::new(Time64MicrosecondArray::from(vec![v])) as ArrayRef)),
        (instant(), any::<bool>()).prop_map(|(v, zone)| {
            let array = TimestampMicrosecondArray::from(vec![v]);
            if zone {
                (SqlType::Timestamptz, Arc::new(array.with_timezone("UTC")) as ArrayRef)
            } else {
                (SqlType::Timestamp, Arc::new(array) as ArrayRef)
            }
        }),
        (any::<i32>(), any::<i32>(), i64::MIN / 1000..=i64::MAX / 1000).prop_map(|(months, days, micros)| {
            let value = IntervalMonthDayNano::new(months, days, micros * 1000);
            (SqlType::Interval, Arc::new(IntervalMonthDayNanoArray::from(vec![value])) as ArrayRef)
        }),
    ]
}

/// Any instant that Arrow and Postgres both have, often near 1970 and 2000.
fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![
        -210_866_803_200_000_000..9_223_372_036_854_775_000i64,
        -2_000_000_000_000_000..2_000_000_000_000_000i64
    ]
}

/// Decimals of every scale, with their declared type or without one.
fn decimal() -> impl Strategy<Value = (SqlType, ArrayRef)> {
    let limit = 10i128.pow(38);
    (1 - limit..limit, 0..38u32, prop::option::of(0..=38i8)).prop_map(|(value, smaller, scale)| {
        let value = value / 10i128.pow(smaller);
        let (ty, scale) = match scale {
            Some(scale) => (SqlType::Numeric(Some((38, scale))), scale),
            None => (SqlType::Numeric(None), 16),
        };
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap();
        (ty, Arc::new(array) as ArrayRef)
    })
}

/// Text with everything that is special somewhere.
fn characters() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        '"', '\\', '{', '}', ',', ' ', '\t', '\n', '\r', '\'', 'N', '\u{1}', 'ß', '😀',
    ]);
    prop::collection::vec(prop_oneof![special, any::<char>()], 0..20)
        .prop_map(|characters| characters.into_iter().filter(|character| *character != '\0').collect())
}

proptest! {
    #[test]
    fn text_and_binary_read_back((ty, array) in typed_value()) {
        // A NaN's payload has no text form.
        let nan = matches!(ty, SqlType::Float4 | SqlType::Float8) && printed(&ty, &array) == "NaN";
        prop_assert_eq!(&decode_binary(&ty, Some(&sent(&ty, &array))).unwrap(), &array);
        if !nan {
            prop_assert_eq!(&decode_text(&ty, Some(printed(&ty, &array).as_bytes())).unwrap(), &array);
        }
    }

    #[test]
    fn arrays_read_back(values in prop::collection::vec(prop::option::of(characters()), 0..8)) {
        let ty = ty("text[]");
        let mut text = bytes::BytesMut::from(&b"{"[..]);
        for (position, value) in values.iter().enumerate() {
            if position > 0 {
                text.extend_from_slice(b",");
            }
            match value {
                Some(value) => super::super::array::write_quoted(value.as_bytes(), &mut text),
                None => text.extend_from_slice(b"NULL"),
            }
        }
        text.extend_from_slice(b"}");
        let array = decode_text(&ty, Some(&text)).unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        prop_assert_eq!(printed(&ty, &array), text);
        prop_assert_eq!(&decode_binary(&ty, Some(&sent(&ty, &array))).unwrap(), &array);
    }

    #[test]
    fn vectors_read_back(values in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 1..50)) {
        let mut text = String::new();
        sepal_types::format_vector(&values, &mut text);
        for ty in [SqlType::Vector(None), SqlType::Vector(u16::try_from(values.len()).ok())] {
            let array = decode_text(&ty, Some(text.as_bytes())).unwrap();
            prop_assert_eq!(&decode_binary(&ty, Some(&sent(&ty, &array))).unwrap(), &array);
            prop_assert_eq!(&printed(&ty, &array), &text);
        }
    }

    #[test]
    fn halfvecs_read_back(bits in prop::collection::vec(any::<u16>(), 1..50)) {
        let halves: Vec<half::f16> = bits.into_iter().map(half::f16::from_bits).filter(|half| half.is_finite()).collect();
        prop_assume!(!halves.is_empty());
        let mut text = String::new();
        sepal_types::format_vector(&halves, &mut text);
        for ty in [SqlType::HalfVec(None), SqlType::HalfVec(u16::try_from(halves.len()).ok())] {
            let array = decode_text(&ty, Some(text.as_bytes())).unwrap();
            prop_assert_eq!(&decode_binary(&ty, Some(&sent(&ty, &array))).unwrap(), &array);
            prop_assert_eq!(&printed(&ty, &array), &text);
        }
    }

    #[test]
    fn sparse_vectors_read_back(
        elements in prop::collection::btree_map(0_u32..1_000_000_000, any::<f32>(), 0..50),
    ) {
        let elements: Vec<(u32, f32)> =
            elements.into_iter().filter(|(_, value)| value.is_finite() && *value != 0.0).collect();
        let vector = sepal_types::SparseVector { dimensions: 1_000_000_000, elements };
        let mut words = Vec::new();
        vector.append_words(&mut words);
        let mut text = String::new();
        sepal_types::SparseWords::new(&words).format(&mut text);
        prop_assert_eq!(&sepal_types::SparseVector::parse(&text, None).unwrap(), &vector);
        for ty in [SqlType::SparseVec(None), SqlType::SparseVec(Some(1_000_000_000))] {
            let array = decode_text(&ty, Some(text.as_bytes())).unwrap();
            prop_assert_eq!(&decode_binary(&ty, Some(&sent(&ty, &array))).unwrap(), &array);
            prop_assert_eq!(&printed(&ty, &array), &text);
        }
    }

    #[test]
    fn jsonb_means_what_was_written_and_is_stable(value in json()) {
        let text = super::super::json::normalize(&value).unwrap();
        prop_assert_eq!(meaning(&text), meaning(&value));
        prop_assert_eq!(super::super::json::normalize(&text).unwrap(), text);
    }

    #[test]
    fn json_is_accepted_as_serde_accepts_it(text in prop::collection::vec(prop::sample::select(
        vec!["{", "}", "[", "]", ",", ":", "\"a\"", "1", "-2.5e3", "true", "null", " ", "x", "\"\\u00e9\"", "0", "."],
    ), 0..12)) {
        let text = text.concat();
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(super::super::json::validate(&text).is_ok(), valid, "{}", text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        feed_every_type(&bytes);
    }

    #[test]
    fn near_misses_never_panic(text in "[-+0-9eE.:/ TZ{}\\[\\]\",\\\\xnulainfPYMDHSbcago]{0,24}") {
        feed_every_type(text.as_bytes());
    }

    #[test]
    fn damaged_binary_never_panics(
        position in 0usize..40, byte in any::<u8>(), cut in 0usize..44,
    ) {
        let whole = unhex("00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003");
        let mut bytes = whole[..cut.min(whole.len())].to_vec();
        if let Some(damaged) = bytes.get_mut(position) {
            *damaged = byte;
        }
        feed_every_type(&bytes);
    }
}

/// The value with every number as its first 11 digits: `5e3` and `5000` mean the same.
fn meaning(text: &str) -> serde_json::Value {
    fn plain(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(number) => format!("number {:.10e}", number.as_f64().unwrap()).into(),
            serde_json::Value::Array(values) => values.into_iter().map(plain).collect(),
            serde_json::Value::Object(members) => {
                members.into_iter().map(|(key, value)| (key, plain(value))).collect()
            }
            other => other,
        }
    }
    plain(serde_json::from_str(text).unwrap())
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (any::<i32>(), -20..20i32).prop_map(|(mantissa, exponent)| format!("{mantissa}e{exponent}")),
        characters().prop_map(|value| serde_json::Value::from(value).to_string()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|values| format!("[ {} ]", values.join(" ,"))),
            prop::collection::vec((characters(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(key, value)| format!("{} :{value}", serde_json::Value::from(key)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Reads the bytes as every type in both forms; what is accepted must also print.
fn feed_every_type(bytes: &[u8]) {
    let declared = [
        "numeric(5,2)",
        "varchar(2)",
        "vector(2)",
        "halfvec(2)",
        "sparsevec(2)",
        "bit(9)",
        "int4[]",
        "text[]",
        "vector(2)[]",
        "numeric[]",
        "jsonb[]",
    ];
    for ty in SqlType::simple_types().chain(declared.map(ty)) {
        for read in [Builder::append_text, Builder::append_binary] {
            let mut builder = Builder::new(&ty, 1);
            if read(&mut builder, bytes).is_ok() {
                let array = builder.finish().unwrap();
                if ty != SqlType::Void {
                    assert_eq!(array.len(), 1);
                    let (text, binary) = (printed(&ty, &array), sent(&ty, &array));
                    assert!(decode_text(&ty, Some(text.as_bytes())).is_ok(), "{} {text}", ty.display_name());
                    // A name goes out as itself where Postgres would send its oid.
                    let named = matches!(ty, SqlType::Regclass | SqlType::Regproc | SqlType::Regtype);
                    assert!(
                        named || decode_binary(&ty, Some(&binary)).is_ok(),
                        "{} {text}",
                        ty.display_name()
                    );
                }
            }
        }
    }
}
