//! A connection to one server: connect, send many commands at once, receive their answers.
//!
//! Nothing is sent twice here. A connection that broke, or did not answer in time, is closed:
//! whether its commands took effect is unknown.

use std::path::Path;
use std::time::Duration;

use redis::{
    ClientTlsConfig, Cmd, ConnectionAddr, ConnectionLike, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates, Value,
};

use super::config::{Address, RedisConfig};
use super::error::RedisStoreError;

/// How long a connection may take, with TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may take. Longer than `WAIT` waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one server.
pub(super) struct ServerConnection {
    address: Address,
    number: u64,
    connection: redis::Connection,
}

impl std::fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConnection")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ServerConnection {
    /// Connects and authenticates. Files are read anew, so that certificates and passwords can be
    /// replaced.
    pub(super) fn open(
        config: &RedisConfig,
        address: &Address,
        number: u64,
    ) -> Result<Self, RedisStoreError> {
        let broken = |source: RedisError| RedisStoreError::Connection {
            address: address.clone(),
            source: Box::new(source),
        };
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = &config.user {
            settings = settings.set_username(user);
        }
        if let Some(file) = &config.password_file {
            let password = read(file)?;
            let password = String::from_utf8_lossy(&password);
            settings = settings.set_password(password.lines().next().unwrap_or_default());
        }
        let (host, port) = (address.host.clone(), address.port);
        let target = match config.url.is_tls {
            false => ConnectionAddr::Tcp(host, port),
            true => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let target = target.into_connection_info().map_err(broken)?;
        let target = target.set_redis_settings(settings);
        let client = match config.url.is_tls {
            false => redis::Client::open(target),
            true => redis::Client::build_with_tls(target, certificates(config)?),
        };
        let client = client.map_err(broken)?;
        let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT);
        let connection = connection.map_err(broken)?;
        let timeouts = connection
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .and_then(|()| connection.set_write_timeout(Some(ANSWER_TIMEOUT)));
        timeouts.map_err(broken)?;
        Ok(Self {
            address: address.clone(),
            number,
            connection,
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Which of this store's connections it is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it can still be used.
    pub(super) fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Sends commands, without waiting for their answers.
    pub(super) fn send(&mut self, commands: &[Cmd]) -> Result<(), RedisStoreError> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend_from_slice(&command.get_packed_command());
        }
        let sent = self.connection.send_packed_command(&bytes);
        sent.map_err(|error| self.broken(error))
    }

    /// Receives so many answers. One may be an error: [`checked`] tells.
    pub(super) fn receive(&mut self, count: usize) -> Result<Vec<Value>, RedisStoreError> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let received = self.connection.recv_response();
            values.push(received.map_err(|error| self.broken(error))?);
        }
        Ok(values)
    }

    /// Sends one command and receives its answer.
    pub(super) fn ask(&mut self, command: &Cmd) -> Result<Value, RedisStoreError> {
        self.send(std::slice::from_ref(command))?;
        let value = self.receive(1)?.pop().unwrap_or(Value::Nil);
        checked(&self.address, value)
    }

    /// Runs a script by its hash, or with its text if the server does not have it yet.
    pub(super) fn run(
        &mut self,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<Value, RedisStoreError> {
        let result = script.invoke(&mut self.connection);
        result.map_err(|error: RedisError| match error.is_io_error() {
            true => self.broken(error),
            false => refused(&self.address, error),
        })
    }

    fn broken(&self, source: RedisError) -> RedisStoreError {
        RedisStoreError::Connection {
            address: self.address.clone(),
            source: Box::new(source),
        }
    }
}

/// An answer that is no error.
pub(super) fn checked(address: &Address, value: Value) -> Result<Value, RedisStoreError> {
    value
        .extract_error()
        .map_err(|error| refused(address, error))
}

fn refused(address: &Address, source: RedisError) -> RedisStoreError {
    RedisStoreError::Refused {
        address: address.clone(),
        source: Box::new(source),
    }
}

fn certificates(config: &RedisConfig) -> Result<TlsCertificates, RedisStoreError> {
    let client_tls = match &config.client {
        None => None,
        Some((cert, key)) => Some(ClientTlsConfig {
            client_cert: read(cert)?,
            client_key: read(key)?,
        }),
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert: config.ca.as_deref().map(read).transpose()?,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, RedisStoreError> {
    std::fs::read(file).map_err(|error| RedisStoreError::File {
        file: file.to_owned(),
        why: error.to_string(),
    })
}
