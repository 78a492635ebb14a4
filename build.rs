//! Compiles `proto/` to Rust and keeps the descriptor set that reflection serves. Pure Rust (protox): no `protoc` needed.
//! Runs when a proto or this file changes.

use std::{env, error::Error, fs, path::PathBuf};

/// What is told over HTTP as it is, in proto3's own mapping to JSON but for numbers, which stay numbers.
const TOLD: &str = "nexushub.procmgr.v1.Usage";
const AS_JSON: &str =
    "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, rename_all = \"camelCase\")]";

const PROTOS: [&str; 4] = [
    "nexushub/provider/v1/provider.proto",
    "nexushub/procmgr/v1/procmgr.proto",
    "nexushub/proxy/v1/proxy.proto",
    "nexushub/debugapi/v1/debugapi.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(PROTOS)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("nexushub.bin"), compiler.encode_file_descriptor_set())?;
    let builder = tonic_prost_build::configure().message_attribute(TOLD, AS_JSON);
    builder.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
