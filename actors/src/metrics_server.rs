//! Serves a job's numbers over HTTP while it runs: `/metrics`, `/observe`, `/checkpoints`, `/health`.
//!
//! It listens on loopback, where only this machine's users reach it. Any other address needs a
//! token, which each request must then bring. The socket is bound before the job starts, so a port
//! that is taken is an error at once and not a log line later.

use crate::telemetry::Telemetry;
use actix_web::dev::{Server, Service, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::{App, HttpResponse, HttpServer, web};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use tidegate_engine::constants::DEFAULT_HOST;

/// The variable of the environment that the token is read from.
pub const TOKEN_VARIABLE: &str = "TIDEGATE_TOKEN";

/// Connections at once; a scraper needs one.
const MAX_CONNECTIONS: usize = 64;

/// Where to serve, and for whom.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// `host:port`, `:port` for loopback, or just a port; port 0 lets the system choose.
    pub address: String,
    /// What each request must bring as `Authorization: Bearer TOKEN`.
    pub token: Option<String>,
}

impl MetricsSettings {
    /// At this address, with the token that the environment holds, if it does.
    pub fn from_env(address: &str) -> Self {
        let token = std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.is_empty());
        MetricsSettings {
            address: address.to_owned(),
            token,
        }
    }
}

impl fmt::Debug for MetricsSettings {
    /// Without the token: a secret never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        let mut out = f.debug_struct("MetricsSettings");
        out.field("address", &self.address)
            .field("token", &token)
            .finish()
    }
}

/// Why metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("'{0}' is no address to serve metrics at; give host:port, such as 127.0.0.1:9090")]
    Address(String),
    /// Others could reach it, and no token protects it.
    #[error(
        "metrics at '{0}' could be read from other machines; set {TOKEN_VARIABLE} to a secret that \
         readers must bring, or serve at 127.0.0.1"
    )]
    Unprotected(SocketAddr),
    /// The system refused.
    #[error("can't serve metrics at '{address}': {cause}; choose another port, or 0 for any")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<String>,
}

impl MetricsSocket {
    /// Binds, if the settings are sound.
    pub fn bind(settings: &MetricsSettings) -> Result<Self, Error> {
        let address = resolve(&settings.address)?;
        let token = settings.token.clone().filter(|token| !token.is_empty());
        if !address.ip().is_loopback() && token.is_none() {
            return Err(Error::Unprotected(address));
        }
        let refused = |cause| Error::Bind { address, cause };
        let listener = TcpListener::bind(address).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(MetricsSocket {
            listener,
            address,
            token,
        })
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on one thread of its own, until its handle is stopped. Call within an actix system.
    pub fn serve(self, telemetry: Telemetry) -> io::Result<Server> {
        let token = self.token;
        let app = move || {
            let token = token.clone();
            App::new()
                .app_data(web::Data::new(telemetry.clone()))
                .wrap_fn(move |request, service| {
                    let given = request.headers().get(header::AUTHORIZATION);
                    let given = given
                        .map(|value| value.as_bytes().to_vec())
                        .unwrap_or_default();
                    let refusal = if !token.as_deref().is_none_or(|token| bears(&given, token)) {
                        let mut response = HttpResponse::Unauthorized();
                        response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
                        Some(response.body("bring the token: Authorization: Bearer TOKEN\n"))
                    } else if ![Method::GET, Method::HEAD].contains(request.method()) {
                        Some(HttpResponse::MethodNotAllowed().finish())
                    } else {
                        None
                    };
                    let answer = match refusal {
                        Some(response) => {
                            let (request, _) = request.into_parts();
                            Err(ServiceResponse::new(request, response))
                        }
                        None => Ok(service.call(request)),
                    };
                    async {
                        match answer {
                            Ok(answer) => answer.await,
                            Err(refusal) => Ok(refusal),
                        }
                    }
                })
                .route("/metrics", web::get().to(metrics))
                .route("/observe", web::get().to(observe))
                .route("/checkpoints", web::get().to(checkpoints))
                .route("/health", web::get().to(health))
        };
        let server = HttpServer::new(app)
            .workers(1)
            .max_connections(MAX_CONNECTIONS);
        Ok(server.disable_signals().listen(self.listener)?.run())
    }
}

fn resolve(address: &str) -> Result<SocketAddr, Error> {
    let unknown = || Error::Address(address.to_owned());
    if let Ok(port) = address.strip_prefix(':').unwrap_or(address).parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Some(port) = address
        .strip_prefix(DEFAULT_HOST)
        .and_then(|rest| rest.strip_prefix(':'))
    {
        let port = port.parse::<u16>().map_err(|_| unknown())?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    address
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(unknown)
}

/// Whether a header brings the token. Takes as long for a wrong one as for the right one.
fn bears(header: &[u8], token: &str) -> bool {
    const SCHEME: &[u8] = b"bearer ";
    let scheme = header.get(..SCHEME.len());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return false;
    }
    let (given, token) = (&header[SCHEME.len()..], token.as_bytes());
    let mut differ = u8::from(given.len() != token.len());
    for (i, wanted) in token.iter().enumerate() {
        differ |= std::hint::black_box(wanted ^ given.get(i).copied().unwrap_or(!wanted));
    }
    std::hint::black_box(differ) == 0
}

async fn metrics(telemetry: web::Data<Telemetry>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("text/plain; version=0.0.4; charset=utf-8");
    response.body(telemetry.prometheus())
}

async fn observe(telemetry: web::Data<Telemetry>) -> HttpResponse {
    HttpResponse::Ok().json(telemetry.observe())
}

async fn checkpoints(telemetry: web::Data<Telemetry>) -> HttpResponse {
    HttpResponse::Ok().json(telemetry.checkpoints.latest())
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "running" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &str, token: Option<&str>) -> Result<MetricsSocket, Error> {
        let token = token.map(str::to_owned);
        MetricsSocket::bind(&MetricsSettings {
            address: address.to_owned(),
            token,
        })
    }

    #[test]
    fn loopback_is_free_and_other_addresses_need_a_token() {
        for address in ["127.0.0.1:0", "localhost:0", ":0", "0", "[::1]:0"] {
            match bind(address, None) {
                Ok(socket) => assert!(socket.address().ip().is_loopback(), "{address}"),
                // A machine may have no IPv6.
                Err(Error::Bind { address, .. }) => assert!(address.is_ipv6(), "{address}"),
                Err(other) => panic!("{address}: {other}"),
            }
        }
        for token in [None, Some("")] {
            let refused = bind("0.0.0.0:0", token)
                .expect_err("unprotected")
                .to_string();
            assert!(refused.contains("set TIDEGATE_TOKEN"), "{refused}");
        }
        assert!(bind("0.0.0.0:0", Some("secret")).is_ok());
    }

    #[test]
    fn errors_are_one_line_that_says_what_to_do() {
        let first = bind("127.0.0.1:0", None).expect("a free port");
        let taken = first.address().to_string();
        for (address, part) in [
            (taken.as_str(), "choose another port"),
            ("nonsense", "give host:port"),
            ("127.0.0.1:99999", "give host:port"),
            ("", "give host:port"),
        ] {
            let error = bind(address, None).expect_err(address).to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn only_the_whole_token_is_borne() {
        for (header, borne) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secret2", false),
            ("Bearer secre", false),
            ("Bearer ", false),
            ("secret", false),
            ("", false),
        ] {
            assert_eq!(bears(header.as_bytes(), "secret"), borne, "{header}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let settings = MetricsSettings {
            address: ":0".into(),
            token: Some("secret".into()),
        };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
