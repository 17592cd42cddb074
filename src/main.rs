use std::process::ExitCode;

fn main() -> ExitCode {
    ssl_cluster::main(std::env::args_os())
}
