//! Values that have names: an enum's variants by the names that serde gives them, so that options and
//! files know the same ones and none is written down twice.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use serde::de::value::{Error, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

/// A parser of the names of an enum without data, which help and errors list.
pub(super) fn named<T>() -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Serialize + Clone + Send + Sync + 'static,
{
    // Of several names serde writes one; the others are of earlier versions.
    let names = names::<T>().iter().map(|&name| {
        let value = read::<T>(name).ok();
        let written = value.and_then(|value| serde_json::to_value(value).ok());
        PossibleValue::new(name).hide(written.is_none_or(|written| written != name))
    });
    PossibleValuesParser::new(names).try_map(|name| read(&name))
}

fn read<T: DeserializeOwned>(name: &str) -> Result<T, Error> {
    T::deserialize(StringDeserializer::<Error>::new(name.into()))
}

/// The names of the variants of `T`, in their order.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // That there is no value behind it is no matter: serde has told the names before it looks for one.
    let _ = T::deserialize(Ear(&mut names));
    names
}

/// Hears which names serde would take.
struct Ear<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ear<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        Err(Error::custom("there is no value"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("it is no enum"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
