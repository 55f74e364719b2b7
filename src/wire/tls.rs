use crate::wire::stream::Stream;
pub struct ClientTlsAcceptor;
impl ClientTlsAcceptor { pub fn reload(&self, _: &crate::config::ClientTls) -> Result<(), std::io::Error> { Ok(()) } }
pub fn new(_: &crate::config::ClientTls) -> Result<Option<ClientTlsAcceptor>, std::io::Error> { Ok(None) }
pub type S = Stream;
