//! A row of text fields as serde sees it: a struct by the names of its columns, or a sequence.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::cell::Cell;
use std::fmt::{self, Display};

/// One row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The columns' names.
    pub(super) names: &'a [String],
    pub(super) text: &'a str,
    /// Where in the text each field stands.
    pub(super) fields: &'a [(u32, u32)],
    /// The columns that are shown to a struct.
    pub(super) columns: &'a [u32],
    /// Learns the names of the fields that a struct has.
    pub(super) wanted: &'a Cell<Option<&'static [&'static str]>>,
}

impl<'a> Row<'a> {
    fn field(&self, column: u32) -> Option<&'a str> {
        let (begin, end) = *self.fields.get(column as usize)?;
        self.text.get(begin as usize..end as usize)
    }
}

/// Why a row is not what was expected, and in which column.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) column: Option<u32>,
    pub(super) message: String,
    /// The header lacks a field.
    pub(super) missing: bool,
}

impl RowError {
    #[cold]
    fn in_column(mut self, column: u32) -> Self {
        self.column.get_or_insert(column);
        self
    }
}

impl Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RowError {}

impl Error for RowError {
    #[cold]
    fn custom<M: Display>(message: M) -> Self {
        RowError {
            column: None,
            message: message.to_string(),
            missing: false,
        }
    }

    #[cold]
    fn missing_field(field: &'static str) -> Self {
        let message = format!("there is no column '{field}'");
        RowError {
            column: None,
            message,
            missing: true,
        }
    }
}

impl<'de> Deserializer<'de> for Row<'de> {
    type Error = RowError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_map(visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.wanted.set(Some(fields));
        visitor.visit_map(Columns { row: self, at: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_map(Columns { row: self, at: 0 })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_seq(Columns { row: self, at: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf enum
        identifier
    }
}

/// Goes through the columns of a row.
struct Columns<'a> {
    row: Row<'a>,
    at: usize,
}

impl<'de> MapAccess<'de> for Columns<'de> {
    type Error = RowError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, RowError> {
        let Some(column) = self.row.columns.get(self.at) else {
            return Ok(None);
        };
        let Some(name) = self.row.names.get(*column as usize) else {
            return Ok(None);
        };
        seed.deserialize(Field(name)).map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RowError> {
        let column = self.row.columns.get(self.at).copied().unwrap_or(u32::MAX);
        self.at += 1;
        let field = self.row.field(column).unwrap_or_default();
        seed.deserialize(Field(field))
            .map_err(|error| error.in_column(column))
    }
}

impl<'de> SeqAccess<'de> for Columns<'de> {
    type Error = RowError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, RowError> {
        let column = self.at as u32;
        let Some(field) = self.row.field(column) else {
            return Ok(None);
        };
        self.at += 1;
        seed.deserialize(Field(field))
            .map(Some)
            .map_err(|error| error.in_column(column))
    }
}

/// One field, or the name of a column.
#[derive(Clone, Copy)]
struct Field<'a>(&'a str);

/// A number or whatever else is written as text.
macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(error) => Err(self.unreadable(&error)),
            }
        }
    )*};
}

impl Field<'_> {
    #[cold]
    fn unreadable(self, error: &dyn Display) -> RowError {
        let mut shown: String = self.0.chars().take(40).collect();
        if shown.len() < self.0.len() {
            shown.push_str("...");
        }
        RowError::custom(format_args!("'{shown}': {error}"))
    }
}

impl<'de> Deserializer<'de> for Field<'de> {
    type Error = RowError;

    parsed! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
        deserialize_char visit_char char;
    }

    /// Where the type doesn't say what it wants, the text does.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            "" => visitor.visit_unit(),
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => {
                if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse::<i64>() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse::<f64>() {
                    visitor.visit_f64(number)
                } else {
                    visitor.visit_borrowed_str(text)
                }
            }
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_borrowed_str(self.0)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_borrowed_str(self.0)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        if self.0.is_empty() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_enum(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { unit unit_struct seq tuple tuple_struct map struct }
}

impl<'de> EnumAccess<'de> for Field<'de> {
    type Error = RowError;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, UnitOnly), RowError> {
        Ok((seed.deserialize(self)?, UnitOnly))
    }
}

/// A field can name a variant of an enum, and holds nothing more.
struct UnitOnly;

impl UnitOnly {
    fn holds_more<V>() -> Result<V, RowError> {
        Err(RowError::custom(
            "a variant with contents can't be read from one field",
        ))
    }
}

impl<'de> VariantAccess<'de> for UnitOnly {
    type Error = RowError;

    fn unit_variant(self) -> Result<(), RowError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, RowError> {
        UnitOnly::holds_more()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, RowError> {
        UnitOnly::holds_more()
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, RowError> {
        UnitOnly::holds_more()
    }
}
