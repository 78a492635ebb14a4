//! The table `[provider]`.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::typed::Typed;

/// Most debug instances that may be asked for.
pub const MAX_DEBUG_INSTANCES: usize = 1000;

/// `[provider]` and its `[[provider.instance]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of further static instances, one file each or more; it need not exist.
    pub apps_dir: PathBuf,
    /// Most debug instances at a time.
    pub max_debug_instances: usize,
    /// Static instances.
    pub instance: Vec<Spanned<Typed>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { apps_dir: PathBuf::from("apps.d"), max_debug_instances: 64, instance: Vec::new() }
    }
}
