//! `scripts/check_cuda.sh` with every check on the CPU, so that it works where a GPU is.

use std::process::Command;

#[test]
fn every_check_passes_on_the_cpu() {
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(format!("{root}/scripts/check_cuda.sh"))
        .arg(env!("CARGO_BIN_EXE_ssl-cluster"))
        .arg("--cpu")
        .current_dir(root)
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}\n{said}");
    let verdicts: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.split('|').nth(2).unwrap().trim())
        .collect();
    assert!(verdicts.len() > 40, "{table}");
    assert!(verdicts.iter().all(|&verdict| verdict == "ok"), "{table}");
}
