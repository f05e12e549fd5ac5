//! Generates the code of Nomad's plugin protocol. The compiler of `.proto` files is a crate: no `protoc` is needed.

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let set = protox::compile(["base.proto", "driver.proto", "go_plugin.proto", "health.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("nomad.bin"), set.encode_to_vec())?;
    // A task's environment and its handle may hold tokens: `Debug` of what carries them is not derived.
    let drivers = "hashicorp.nomad.plugins.drivers.proto";
    let silent = ["TaskConfig", "TaskHandle", "StartTaskRequest", "StartTaskResponse", "RecoverTaskRequest"];
    tonic_prost_build::configure()
        .include_file("proto.rs")
        .build_client(true)
        .skip_debug(silent.map(|message| format!(".{drivers}.{message}")))
        .compile_fds(set)?;
    Ok(())
}
