//! How a client reaches its brokers: addresses, TLS, SASL and any property of librdkafka, checked before
//! the job starts and shared by source and sink.

use super::names::{BUILDERS, JAVA_NAMES, canonical};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use tidegate_engine::fault::Fault;

/// Why settings are not sound.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// No broker was named.
    #[error("no broker was named: add .bootstrap_servers(\"host:port\")")]
    NoServers,
    /// Something that is no address of a broker.
    #[error("bootstrap.servers: '{0}' is no address of a broker; give it as host:port")]
    Server(String),
    /// A topic can't have this name.
    #[error("'{0}' is no name of a topic: letters, digits, '.', '_' and '-', at most 249 of them")]
    Topic(String),
    /// A pattern is no regular expression.
    #[error("'{0}' is no regular expression for topics: {1}")]
    Pattern(String, String),
    /// Something else that has to be said was not.
    #[error("{0}")]
    Missing(&'static str),
    /// librdkafka does not know the property, or not this value of it, or it doesn't go with another one.
    #[error("property '{property}': {why}")]
    Property {
        /// Its name.
        property: String,
        /// What is wrong with it.
        why: String,
    },
    /// librdkafka refuses the settings as a whole.
    #[error("librdkafka refuses these settings: {0}")]
    Client(String),
}

impl KafkaError {
    /// Something is wrong with this property.
    pub(crate) fn property(property: impl Into<String>, why: impl fmt::Display) -> Self {
        KafkaError::Property {
            property: property.into(),
            why: why.to_string(),
        }
    }
}

impl fmt::Debug for KafkaError {
    /// As it displays itself: this is what a `main` that returns it prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Fault {
        Fault::user(error)
    }
}

/// How a broker proves who it is, and where it asks for that, this client too. Files in PEM format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    authority: Option<String>,
    certificate: Option<(String, String)>,
}

impl Tls {
    /// Trusts the authorities that the system trusts.
    pub fn new() -> Self {
        Tls::default()
    }

    /// Trusts the authorities in this file instead.
    pub fn authority(mut self, path: impl Into<String>) -> Self {
        self.authority = Some(path.into());
        self
    }

    /// Shows this certificate, with its private key.
    pub fn certificate(mut self, path: impl Into<String>, key_path: impl Into<String>) -> Self {
        self.certificate = Some((path.into(), key_path.into()));
        self
    }
}

/// How this client proves who it is with a name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    mechanism: &'static str,
    user: String,
    password: String,
}

impl Sasl {
    fn new(mechanism: &'static str, user: impl Into<String>, password: impl Into<String>) -> Self {
        Sasl {
            mechanism,
            user: user.into(),
            password: password.into(),
        }
    }

    /// PLAIN: the password itself is sent. Together with [`Tls`] only.
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Sasl::new("PLAIN", user, password)
    }

    /// SCRAM-SHA-256.
    pub fn scram_sha_256(user: impl Into<String>, password: impl Into<String>) -> Self {
        Sasl::new("SCRAM-SHA-256", user, password)
    }

    /// SCRAM-SHA-512.
    pub fn scram_sha_512(user: impl Into<String>, password: impl Into<String>) -> Self {
        Sasl::new("SCRAM-SHA-512", user, password)
    }
}

impl fmt::Debug for Sasl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sasl({} as {})", self.mechanism, self.user)
    }
}

/// How a client reaches its brokers. Source and sink carry one each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    servers: String,
    /// By the canonical name, the name that it was set by and the value.
    properties: BTreeMap<String, (String, String)>,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

impl fmt::Debug for ClientSettings {
    /// Without secrets: of properties, only the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("servers", &self.servers)
            .field("properties", &self.properties.keys())
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .finish()
    }
}

impl ClientSettings {
    /// Settings without a broker.
    pub fn new() -> Self {
        ClientSettings::default()
    }

    /// The brokers to ask first: `host:port`, several with commas between them.
    pub fn bootstrap_servers(&mut self, servers: impl Into<String>) {
        self.servers = servers.into();
    }

    /// The brokers that were named.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Speaks TLS.
    pub fn tls(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// Proves who it is.
    pub fn sasl(&mut self, sasl: Sasl) {
        self.sasl = Some(sasl);
    }

    /// Any property of librdkafka. What is set here wins over what a preset or a default says.
    pub fn property(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match canonical(&name) {
            "bootstrap.servers" => self.servers = value,
            canonical => {
                let canonical = canonical.to_owned();
                self.properties.insert(canonical, (name, value));
            }
        }
    }

    /// What a property was set to, by whichever of its names.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.set(name).map(|(_, value)| value)
    }

    /// The name that a property was set by, and its value.
    fn set(&self, name: &str) -> Option<(&str, &str)> {
        let (name, value) = self.properties.get(canonical(name))?;
        Some((name, value))
    }

    /// Refuses a number that is not within a range.
    pub(crate) fn within(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        why: &str,
    ) -> Result<(), KafkaError> {
        let Some((name, value)) = self.set(name) else {
            return Ok(());
        };
        // What is no number at all librdkafka refuses itself.
        match value.trim().parse() {
            Ok(number) if !range.contains(&number) => {
                let (least, most) = range.into_inner();
                let why = format_args!("{number} is not between {least} and {most}: {why}");
                Err(KafkaError::property(name, why))
            }
            _ => Ok(()),
        }
    }

    /// The configuration of a client. `defaults` hold where the user says nothing; `fixed` hold always, and
    /// a user who sets one of them otherwise is told why not. Every property and every value has been seen
    /// by librdkafka when this returns.
    pub fn config(
        &self,
        defaults: &[(&str, &str)],
        fixed: &[(&str, &str)],
    ) -> Result<ClientConfig, KafkaError> {
        self.check_servers()?;
        for (name, value) in fixed {
            if let Some((set_by, _)) = self.set(name).filter(|(_, set)| set != value) {
                return Err(not_by_property(set_by, value));
            }
        }
        let mut all = BTreeMap::new();
        let mut insert = |(name, value)| {
            all.insert(canonical(name), (name, value));
        };
        defaults.iter().copied().for_each(&mut insert);
        insert(("bootstrap.servers", &self.servers));
        self.security(&mut insert)?;
        let set = self.properties.values();
        set.for_each(|(name, value)| insert((name, value)));
        fixed.iter().copied().for_each(insert);
        let mut config = ClientConfig::new();
        for (name, (set_by, value)) in all {
            let mut alone = ClientConfig::new();
            alone.set(set_by, value);
            alone
                .create_native_config()
                .map_err(|error| refused(set_by, &error))?;
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        Ok(config)
    }

    fn check_servers(&self) -> Result<(), KafkaError> {
        if self.servers.trim().is_empty() {
            return Err(KafkaError::NoServers);
        }
        for server in self.servers.split(',') {
            // A protocol before the address is librdkafka's own way to name a listener.
            let address = server.trim();
            let address = address.split_once("://").map_or(address, |(_, rest)| rest);
            let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if !sound {
                return Err(KafkaError::Server(server.trim().to_owned()));
            }
        }
        Ok(())
    }

    fn security<'a>(
        &'a self,
        mut insert: impl FnMut((&'a str, &'a str)),
    ) -> Result<(), KafkaError> {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return Ok(()),
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        };
        if let Some(set) = self
            .get("security.protocol")
            .filter(|set| !set.eq_ignore_ascii_case(protocol))
        {
            let why = format_args!(
                "'{set}' contradicts .tls(..) and .sasl(..), which make it '{protocol}'"
            );
            return Err(KafkaError::property("security.protocol", why));
        }
        insert(("security.protocol", protocol));
        if let Some(tls) = &self.tls {
            let mut file = |name: &'static str, path: &'a str| {
                std::fs::File::open(path).map_err(|error| {
                    KafkaError::property(name, format_args!("can't read {path}: {error}"))
                })?;
                insert((name, path));
                Ok(())
            };
            if let Some(path) = &tls.authority {
                file("ssl.ca.location", path)?;
            }
            if let Some((certificate, key)) = &tls.certificate {
                file("ssl.certificate.location", certificate)?;
                file("ssl.key.location", key)?;
            }
        }
        if let Some(sasl) = &self.sasl {
            insert(("sasl.mechanism", sasl.mechanism));
            insert(("sasl.username", &sasl.user));
            insert(("sasl.password", &sasl.password));
        }
        Ok(())
    }
}

#[cold]
fn not_by_property(name: &str, value: &str) -> KafkaError {
    let builder = BUILDERS
        .iter()
        .find(|(name_of, _)| *name_of == canonical(name));
    match builder {
        Some((_, builder)) => KafkaError::property(name, format_args!("set it with {builder}")),
        None => KafkaError::property(
            name,
            format_args!("it is Tidegate that sets it, to '{value}'; leave it out"),
        ),
    }
}

#[cold]
fn refused(name: &str, error: &rdkafka::error::KafkaError) -> KafkaError {
    if let Some((_, ours)) = JAVA_NAMES.iter().find(|(java, _)| *java == name) {
        return KafkaError::property(name, format_args!("librdkafka calls it {ours}"));
    }
    let why = match error {
        rdkafka::error::KafkaError::ClientConfig(_, why, ..) => why.trim().to_owned(),
        other => other.to_string(),
    };
    KafkaError::property(name, why)
}

#[cfg(test)]
mod tests {
    use super::super::names::ALIASES;
    use super::*;

    fn local() -> ClientSettings {
        let mut settings = ClientSettings::new();
        settings.bootstrap_servers("localhost:9092");
        settings
    }

    fn refusal(settings: &ClientSettings) -> String {
        settings
            .config(&[], &[("enable.auto.commit", "false")])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_the_user_sets_wins_over_defaults_but_not_over_what_is_fixed() {
        let mut settings = local();
        settings.property("linger.ms", "7");
        let config = settings
            .config(&[("linger.ms", "5"), ("acks", "all")], &[])
            .unwrap();
        assert_eq!(
            (config.get("linger.ms"), config.get("acks")),
            (Some("7"), Some("all"))
        );
        settings.property("enable.auto.commit", "true");
        assert_eq!(
            refusal(&settings),
            "property 'enable.auto.commit': it is Tidegate that sets it, to 'false'; leave it out"
        );
    }

    #[test]
    fn every_property_is_checked_and_named() {
        let mut settings = local();
        settings.property("no.such.thing", "1");
        assert!(refusal(&settings).starts_with("property 'no.such.thing': "));
        let mut settings = local();
        settings.property("fetch.min.bytes", "many");
        assert!(refusal(&settings).starts_with("property 'fetch.min.bytes': "));
        let mut settings = local();
        settings.property("fetch.max.wait.ms", "5");
        assert_eq!(
            refusal(&settings),
            "property 'fetch.max.wait.ms': librdkafka calls it fetch.wait.max.ms"
        );
    }

    #[test]
    fn a_property_is_the_same_by_each_of_its_names() {
        for (alias, name) in ALIASES
            .iter()
            .filter(|(_, name)| *name != "bootstrap.servers")
        {
            let values = match *name {
                "compression.type" => ["none", "gzip"],
                "enable.auto.commit" => ["false", "true"],
                "acks" => ["all", "1"],
                _ => ["7", "8"],
            };
            for (default, set) in [(name, alias), (alias, name), (alias, alias)] {
                let mut settings = local();
                settings.property(*set, values[1]);
                assert_eq!(settings.get(name), settings.get(alias));
                let config = settings.config(&[(default, values[0])], &[]).unwrap();
                assert_eq!(config.get(name), Some(values[1]), "{set} over {default}");
                assert_eq!(config.get(alias), None, "{alias} is {name}");
                let fixed = settings.config(&[], &[(default, values[0])]);
                let said = fixed.unwrap_err().to_string();
                assert!(said.contains(&format!("property '{set}'")), "{said}");
            }
            let mut settings = local();
            settings.property(*alias, values[0]);
            settings.property(*name, values[1]);
            assert_eq!(settings.get(alias), Some(values[1]), "the last one counts");
        }
        let mut settings = local();
        settings.property("queue.buffering.max.ms", "soon");
        assert!(refusal(&settings).starts_with("property 'queue.buffering.max.ms': "));
        settings.property("metadata.broker.list", "elsewhere:9092");
        assert_eq!(settings.servers(), "elsewhere:9092");
    }

    #[test]
    fn addresses_are_checked() {
        for wrong in ["localhost", "localhost:", ":9092", "localhost:0", "a:1,b"] {
            let mut settings = ClientSettings::new();
            settings.bootstrap_servers(wrong);
            assert!(refusal(&settings).contains("host:port"), "{wrong}");
        }
        assert!(refusal(&ClientSettings::new()).contains("bootstrap_servers"));
        let mut settings = ClientSettings::new();
        settings.bootstrap_servers("a:1, SSL://b:2");
        assert!(settings.config(&[], &[]).is_ok());
    }

    #[test]
    fn tls_and_sasl_choose_the_protocol_and_show_no_password() {
        let mut settings = local();
        settings.sasl(Sasl::scram_sha_512("me", "hunter2"));
        let config = settings.config(&[], &[]).unwrap();
        assert_eq!(config.get("security.protocol"), Some("SASL_PLAINTEXT"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        settings.property("sasl.password", "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        settings.tls(Tls::new().authority("/nowhere/ca.pem"));
        assert!(
            refusal(&settings)
                .starts_with("property 'ssl.ca.location': can't read /nowhere/ca.pem")
        );
        let mut settings = local();
        settings.tls(Tls::new());
        settings.property("security.protocol", "plaintext");
        assert!(refusal(&settings).contains("contradicts"));
    }
}
