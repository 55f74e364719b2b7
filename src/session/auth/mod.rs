use crate::wire::{error::*, stream::Stream};
pub struct UserSource; pub enum AuthError { Gone, Refused(ErrorResponse) } pub struct Credentials { pub secret: crate::upstream::login::UpstreamSecret }
impl UserSource { pub async fn lookup(&self, u: &str, f: impl AsyncFnOnce(&str) -> Result<Option<String>, String>) -> Result<Option<String>, String> { f(u).await } }
pub async fn authenticate(_: &mut Stream, _: crate::config::AuthMode, _: &str, _: Option<String>, _: Option<&str>) -> Result<Credentials, AuthError> { Err(AuthError::Gone) }
