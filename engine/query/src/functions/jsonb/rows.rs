//! The functions of `json` and `jsonb` that return rows: `jsonb_array_elements`, `jsonb_each`, `jsonb_object_keys` and
//! their kin.
//!
//! Each column that such a function has is a scalar function here which gives a list; the planner unnests the lists
//! side by side (`planner/json_rows.rs`). Lists hold text: what `jsonb` an element is, it says again after that, for
//! DataFusion forgets a list's metadata when it unnests.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Builder, ListBuilder, StringBuilder},
        datatypes::{DataType, Field, FieldRef},
    },
    common::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
    },
};
use sepal_types::{Error, SqlState};

use super::{
    Flavour, Form,
    argument::{MAX_TEXT_BYTES, Parameter},
    json_call,
    read::plain,
    text::{Kind, items, kind, members},
};
use crate::{
    error::{carry, undefined_function_call},
    functions::{
        argument::Argument,
        constants::{all_constant, answer},
    },
    output::sql_type,
};

/// What becomes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rows {
    Elements,
    Keys,
    Members,
}

/// A function that returns rows.
#[derive(Debug)]
pub struct RowsFunction {
    pub name: &'static str,
    rows: Rows,
    form: Form,
    flavour: Flavour,
}

const fn of(name: &'static str, rows: Rows, form: Form, flavour: Flavour) -> RowsFunction {
    RowsFunction { name, rows, form, flavour }
}

static FUNCTIONS: [RowsFunction; 10] = [
    of("json_array_elements", Rows::Elements, Form::Json, Flavour::Json),
    of("json_array_elements_text", Rows::Elements, Form::Text, Flavour::Json),
    of("json_each", Rows::Members, Form::Json, Flavour::Json),
    of("json_each_text", Rows::Members, Form::Text, Flavour::Json),
    of("json_object_keys", Rows::Keys, Form::Text, Flavour::Json),
    of("jsonb_array_elements", Rows::Elements, Form::Json, Flavour::Jsonb),
    of("jsonb_array_elements_text", Rows::Elements, Form::Text, Flavour::Jsonb),
    of("jsonb_each", Rows::Members, Form::Json, Flavour::Jsonb),
    of("jsonb_each_text", Rows::Members, Form::Text, Flavour::Jsonb),
    of("jsonb_object_keys", Rows::Keys, Form::Text, Flavour::Jsonb),
];

/// The function of this name, if it is one that returns rows of JSON.
pub fn json_rows(name: &str) -> Option<&'static RowsFunction> {
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// The columns' functions, so that they can be called in a select list.
pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    LISTS.iter().map(|(_, _, function)| Arc::clone(function))
}

/// A column of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Key,
    Ordinal,
    Value,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Ordinal => "ordinality",
            Self::Value => "value",
        }
    }
}

type Lists = Vec<(&'static str, Part, Arc<ScalarUDF>)>;

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    let mut lists = Vec::new();
    for function in &FUNCTIONS {
        for part in [Part::Key, Part::Ordinal, Part::Value] {
            let list = ListOf {
                name: list_name(function, part),
                function: function.name,
                rows: function.rows,
                form: function.form,
                flavour: function.flavour,
                part,
                signature: Signature::any(1, Volatility::Immutable),
            };
            lists.push((function.name, part, Arc::new(ScalarUDF::from(list))));
        }
    }
    lists
});

fn list_name(function: &RowsFunction, part: Part) -> String {
    format!("sepal_{}_{}", function.name, part.name())
}

impl RowsFunction {
    fn parts(&self) -> &'static [Part] {
        match self.rows {
            Rows::Elements => &[Part::Value],
            Rows::Keys => &[Part::Key],
            Rows::Members => &[Part::Key, Part::Value],
        }
    }

    /// The names of its columns; a function with one column that it does not name has `None`.
    pub fn columns(&self) -> Vec<Option<&'static str>> {
        match self.rows {
            Rows::Keys => vec![None],
            _ => self.parts().iter().map(|part| Some(part.name())).collect(),
        }
    }

    pub fn takes_jsonb(&self) -> bool {
        self.flavour == Flavour::Jsonb
    }

    /// The scalar function whose lists are the only column, and the one that says what their elements are, if they
    /// are not text: for calls in a select list.
    pub fn only_column(&self) -> Option<(String, Option<&'static str>)> {
        match self.parts() {
            [part] => Some((list_name(self, *part), self.marker(*part))),
            _ => None,
        }
    }

    /// For each column the list of its values, then that of their numbers from 1.
    pub fn lists(&self, argument: &Expr, ordinality: bool) -> Vec<Expr> {
        let wanted = self.parts().iter().chain(ordinality.then_some(&Part::Ordinal));
        let list = |part: &Part| {
            LISTS.iter().find(|(name, of, _)| *name == self.name && of == part).map(|(_, _, list)| list)
        };
        wanted.filter_map(list).map(|list| list.call(vec![argument.clone()])).collect()
    }

    /// A column of the lists' elements with its type.
    pub fn typed(&self, position: usize, element: Expr) -> Result<Expr> {
        match self.parts().get(position).and_then(|part| self.marker(*part)) {
            Some(marker) => json_call(marker, vec![element]),
            None => Ok(element),
        }
    }

    fn marker(&self, part: Part) -> Option<&'static str> {
        match (part, self.form, self.flavour) {
            (Part::Value, Form::Json, Flavour::Json) => Some("sepal_json_known"),
            (Part::Value, Form::Json, Flavour::Jsonb) => Some("sepal_jsonb_known"),
            _ => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ListOf {
    name: String,
    function: &'static str,
    rows: Rows,
    form: Form,
    flavour: Flavour,
    part: Part,
    signature: Signature,
}

fn list_type(part: Part) -> DataType {
    let element = if part == Part::Ordinal { DataType::Int64 } else { DataType::Utf8 };
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

impl ScalarUDFImpl for ListOf {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_type(self.part))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if !args.arg_fields.iter().all(|field| Parameter::Json.accepts(field.data_type())) {
            let types: Vec<_> = args.arg_fields.iter().map(|field| sql_type(field)).collect();
            return Err(carry(undefined_function_call(self.function, &types)));
        }
        Ok(Arc::new(Field::new(&self.name, list_type(self.part), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ([value], [field]) = (args.args.as_slice(), args.arg_fields.as_slice()) else {
            return Err(carry(Error::bug(format!("{} takes one argument", self.name))));
        };
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let argument = Argument::new(value, field, &Parameter::Json.target(self.flavour))?;
        let lists = match self.part {
            Part::Ordinal => self.ordinals(&argument, rows),
            Part::Key | Part::Value => self.texts(&argument, rows),
        };
        answer(lists.map_err(carry)?, constant)
    }
}

impl ListOf {
    fn ordinals(&self, argument: &Argument, rows: usize) -> sepal_types::Result<ArrayRef> {
        let mut lists = ListBuilder::new(Int64Builder::new());
        for row in 0..rows {
            if argument.is_null(row) {
                lists.append(false);
                continue;
            }
            let text = argument.text(row);
            self.check(text)?;
            let count = match self.rows {
                Rows::Elements => items(text).count(),
                Rows::Keys | Rows::Members => members(text).count(),
            };
            lists.values().extend((1..).take(count).map(Some));
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }

    fn texts(&self, argument: &Argument, rows: usize) -> sepal_types::Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut bytes = 0_usize;
        for row in 0..rows {
            if argument.is_null(row) {
                lists.append(false);
                continue;
            }
            let text = argument.text(row);
            self.check(text)?;
            bytes = bytes.saturating_add(text.len());
            if bytes > MAX_TEXT_BYTES {
                let message = format!("the rows of {}() exceed 1 GiB in one batch", self.function);
                return Err(Error::new(SqlState::ProgramLimitExceeded, message)
                    .with_hint("Select fewer rows at once, or a part of each value."));
            }
            match self.rows {
                Rows::Elements => {
                    for item in items(text) {
                        self.append(item, lists.values())?;
                    }
                }
                Rows::Keys | Rows::Members => {
                    for (key, value) in members(text) {
                        match self.part {
                            Part::Key => lists.values().append_option(plain(key, self.flavour)?),
                            _ => self.append(value, lists.values())?,
                        }
                    }
                }
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }

    fn append(&self, value: &str, texts: &mut StringBuilder) -> sepal_types::Result<()> {
        match self.form {
            Form::Json => texts.append_value(value),
            Form::Text => texts.append_option(plain(value, self.flavour)?),
        }
        Ok(())
    }

    /// Errors: 22023 for a value of another kind (`jsonfuncs.c`).
    fn check(&self, text: &str) -> sepal_types::Result<()> {
        let (kind, name) = (kind(text), self.function);
        let message = match (self.rows, self.flavour, kind) {
            (Rows::Elements, _, Kind::Array) | (Rows::Keys | Rows::Members, _, Kind::Object) => return Ok(()),
            (Rows::Elements, Flavour::Json, Kind::Object) => format!("cannot call {name} on a non-array"),
            (Rows::Elements, Flavour::Json, _) => format!("cannot call {name} on a scalar"),
            (Rows::Elements, Flavour::Jsonb, Kind::Object) => {
                "cannot extract elements from an object".to_owned()
            }
            (Rows::Elements, Flavour::Jsonb, _) => "cannot extract elements from a scalar".to_owned(),
            (Rows::Keys, _, Kind::Array) => format!("cannot call {name} on an array"),
            (Rows::Keys, _, _) => format!("cannot call {name} on a scalar"),
            (Rows::Members, Flavour::Json, Kind::Array) => {
                "cannot deconstruct an array as an object".to_owned()
            }
            (Rows::Members, Flavour::Json, _) => "cannot deconstruct a scalar".to_owned(),
            (Rows::Members, Flavour::Jsonb, _) => format!("cannot call {name} on a non-object"),
        };
        Err(Error::new(SqlState::InvalidParameterValue, message))
    }
}
