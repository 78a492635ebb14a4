//! How what an instance says of its requests is kept on disk: as the message that it came in and goes on in. Only the proxy uses
//! it, so nothing here has to know what is in it.

use nexushub_proto::provider::Route;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Writes the message's bytes.
pub(super) fn serialize<S: Serializer>(route: &Option<Route>, to: S) -> Result<S::Ok, S::Error> {
    route.as_ref().map(Message::encode_to_vec).serialize(to)
}

/// Reads them.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Route>, D::Error> {
    let bytes = Option::<Vec<u8>>::deserialize(from)?;
    bytes.map(|bytes| Route::decode(bytes.as_slice())).transpose().map_err(de::Error::custom)
}
