//! A program whose user code panics: what its user sees is one line and exit code 1.

use tidegate::prelude::*;

fn main() -> Result<()> {
    let env = StreamEnv::from_args()?;
    env.source("numbers", Generator::new(10_000, |n| n))
        .map(|n| {
            assert!(n != 5_000, "five thousand is too much");
            n
        })
        .name("picky")
        .key_by(|n| *n)
        .reduce(|a, b| a + b)
        .sink("out", BlackHole);
    env.execute("panics")?;
    Ok(())
}
