//! The flags of single methods, from the tables in their files.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use super::settings::toml_value;
use crate::method::{Flag, METHODS, MethodOption};

/// The flags of single methods, which come from the tables in their files.
#[derive(Debug, Default)]
pub struct MethodFlags(pub toml::Table);

impl MethodFlags {
    /// Each option that has a flag, with the methods that have it.
    fn flags() -> Vec<(&'static MethodOption, Vec<&'static str>)> {
        let mut flags: Vec<(&MethodOption, Vec<&str>)> = Vec::new();
        for entry in METHODS {
            for option in entry
                .options
                .iter()
                .filter(|option| option.flag != Flag::None)
            {
                match flags.iter_mut().find(|(known, _)| known.key == option.key) {
                    Some((_, methods)) => methods.push(entry.name),
                    None => flags.push((option, vec![entry.name])),
                }
            }
        }
        flags
    }
}

impl FromArgMatches for MethodFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut table = toml::Table::new();
        for (option, _) in Self::flags() {
            match option.flag {
                Flag::Switch if matches.get_flag(option.key) => {
                    table.insert(option.key.into(), true.into());
                }
                Flag::Value(_) => {
                    if let Some(text) = matches.get_one::<String>(option.key) {
                        table.insert(option.key.into(), toml_value(text));
                    }
                }
                Flag::Switch | Flag::None => {}
            }
        }
        Ok(Self(table))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl Args for MethodFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        Self::flags()
            .into_iter()
            .fold(command, |command, (option, methods)| {
                let flag = Arg::new(option.key)
                    .long(option.key.replace('_', "-"))
                    .help(format!("{}: {}", methods.join(", "), option.help));
                command.arg(match option.flag {
                    Flag::Value(name) => flag.value_name(name).allow_negative_numbers(true),
                    Flag::Switch | Flag::None => flag.action(ArgAction::SetTrue),
                })
            })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}
