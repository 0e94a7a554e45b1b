//! Packs the built-in model's weights, which are a quarter of the program otherwise.

#[path = "src/demo/code.rs"]
mod code;
#[path = "src/demo/pack.rs"]
mod pack;

use std::path::Path;

fn main() -> std::io::Result<()> {
    for read in ["build.rs", "src/demo/code.rs", "src/demo/pack.rs", "src/demo/model.safetensors"] {
        println!("cargo::rerun-if-changed={read}");
    }
    let weights = std::fs::read("src/demo/model.safetensors")?;
    let folder = std::env::var_os("OUT_DIR").expect("cargo names a folder");
    std::fs::write(Path::new(&folder).join("model.packed"), pack::pack(&weights))
}
