//! A method's own options, in one table in the method's file: flags, `--set`, help, the keys of `[method]`
//! and `ssl-cluster methods` come from it.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One option of a method.
#[derive(Debug, Clone, Copy)]
pub struct MethodOption {
    /// As in `--set key=value` and in `[method]`.
    pub key: &'static str,
    /// What it means, with its values.
    pub help: &'static str,
    /// Whether `train` has a flag of that name, and what stands behind it.
    pub flag: Flag,
}

/// How an option is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// By `--set` alone.
    None,
    /// By a flag that is given or not.
    Switch,
    /// By a flag with a value of this name.
    Value(&'static str),
}

/// Defines a method's options: a struct with defaults, and the table of what each of them means.
///
/// ```ignore
/// method_options! {
///     /// The option's help.
///     heads: usize = 1, Flag::Value("HEADS");
/// }
/// ```
/// makes `Options` (fields `pub(super)`) and `OPTIONS: &[MethodOption]`.
macro_rules! method_options {
    ($($(#[doc = $help:literal])+ $key:ident: $type:ty = $default:expr, $flag:expr;)*) => {
        /// The method's own options.
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Options {
            $($(#[doc = $help])+ $key: $type,)*
        }

        impl Default for Options {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        /// What each of them means.
        const OPTIONS: &[$crate::method::MethodOption] = &[
            $($crate::method::MethodOption {
                key: stringify!($key),
                help: concat!($($help),+).trim_ascii_start(),
                flag: $flag,
            },)*
        ];
    };
}
pub(super) use method_options;

/// A method's options from the `[method]` table, defaults where it is silent.
pub fn parse_options<T: DeserializeOwned + Serialize + Default>(given: &toml::Table) -> Result<T> {
    let mut table = option_table::<T>();
    table.extend(given.clone());
    toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| {
            let text = error.to_string().trim_end().replace('\n', " ");
            crate::error::usage(format!("method options: {text}"))
        })
}

/// An empty table for each of these names: a list of tasks whose options are all left open.
pub fn tables_of(names: impl IntoIterator<Item = impl AsRef<str>>) -> toml::Table {
    let names = names.into_iter();
    let names = names.map(|name| name.as_ref().trim().to_string());
    let named = names.filter(|name| !name.is_empty());
    named
        .map(|name| (name, toml::Value::Table(toml::Table::new())))
        .collect()
}

/// The defaults of a method's options as a table.
pub fn option_table<T: Serialize + Default>() -> toml::Table {
    toml::Table::try_from(T::default()).unwrap_or_default()
}
