//! The agent's configuration as bytes: `key NUL value NUL` until the end. Neither arguments nor environment can hold a NUL,
//! and every other byte is passed on as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// What a guest is to be. Without a program (`args` empty) it ends with code 0 as soon as it is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The program and its arguments.
    pub args: Vec<OsString>,
    /// The program's whole environment, each `NAME=value`.
    pub env: Vec<OsString>,
    /// Lines of `/etc/hosts`.
    pub hosts: Vec<String>,
    /// The guest's host name.
    pub hostname: String,
    /// The certificate authority, for `/etc/nexushub/ca.crt`.
    pub ca: Option<Vec<u8>>,
    /// Bound of `/tmp`; 0 = the kernel's own, half of the guest's memory.
    pub tmp_bytes: u64,
    /// Files that the app may have open; 0 = the kernel's own bound.
    pub open_files: u64,
    /// Processes and threads that the app may have; 0 = the kernel's own bound.
    pub processes: u64,
    /// How long the app's processes have after a stop.
    pub stop_ms: u64,
    /// A release and data are shared.
    pub shares: bool,
    /// The host's `/usr` is shared.
    pub base: bool,
    /// Its way out to the internet, if it has one.
    pub way_out: Option<WayOut>,
    /// The certificates of the host's authorities, for who reaches the internet.
    pub authorities: Option<Vec<u8>>,
}

/// What a guest's own end of its way out is: `198.18.0.2/30 198.18.0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// How many of its bits are the network's.
    pub prefix: u8,
    /// Where the way leads on, and who is asked for names.
    pub gateway: Ipv4Addr,
}

impl WayOut {
    /// The mask of its network.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.address, self.prefix, self.gateway)
    }
}

impl FromStr for WayOut {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, gateway) = text.split_once(' ').ok_or(())?;
        let (address, prefix) = network.split_once('/').ok_or(())?;
        let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix)).ok_or(())?;
        let parse = |text: &str| text.parse().map_err(|_| ());
        Ok(Self { address: parse(address)?, prefix, gateway: parse(gateway)? })
    }
}

impl Config {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |key: &str, value: &[u8]| {
            bytes.extend([key.as_bytes(), value].map(|part| [part, b"\0"].concat()).concat());
        };
        self.args.iter().for_each(|arg| put("arg", arg.as_bytes()));
        self.env.iter().for_each(|variable| put("env", variable.as_bytes()));
        self.hosts.iter().for_each(|line| put("host", line.as_bytes()));
        put("hostname", self.hostname.as_bytes());
        if let Some(ca) = &self.ca {
            put("ca", ca);
        }
        put("tmp-bytes", self.tmp_bytes.to_string().as_bytes());
        put("open-files", self.open_files.to_string().as_bytes());
        put("processes", self.processes.to_string().as_bytes());
        put("stop-ms", self.stop_ms.to_string().as_bytes());
        put("shares", if self.shares { b"1" } else { b"0" });
        put("base", if self.base { b"1" } else { b"0" });
        if let Some(way) = &self.way_out {
            put("way-out", way.to_string().as_bytes());
        }
        if let Some(authorities) = &self.authorities {
            put("authorities", authorities);
        }
        bytes
    }

    /// From bytes; says which part is wrong.
    ///
    /// # Errors
    /// When a part is cut off, not known or not of its form.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut config = Self::default();
        let Some((0, whole)) = bytes.split_last() else { return Err("configuration: cut off".into()) };
        let mut parts = whole.split(|byte| *byte == 0);
        while let Some(key) = parts.next() {
            let key = String::from_utf8_lossy(key);
            let value = parts.next().ok_or_else(|| format!("configuration: {key} has no value"))?;
            config.set(&key, value).ok_or_else(|| format!("configuration: {key} is not understood"))?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let text = || str::from_utf8(value).ok();
        let number = || text()?.parse().ok();
        let flag = || number().map(|number| number == 1);
        match key {
            "arg" => self.args.push(OsString::from_vec(value.to_vec())),
            "env" => self.env.push(OsString::from_vec(value.to_vec())),
            "host" => self.hosts.push(text()?.into()),
            "hostname" => self.hostname = text()?.into(),
            "ca" => self.ca = Some(value.to_vec()),
            "tmp-bytes" => self.tmp_bytes = number()?,
            "open-files" => self.open_files = number()?,
            "processes" => self.processes = number()?,
            "stop-ms" => self.stop_ms = number()?,
            "shares" => self.shares = flag()?,
            "base" => self.base = flag()?,
            "way-out" => self.way_out = Some(text()?.parse().ok()?),
            "authorities" => self.authorities = Some(value.to_vec()),
            _ => return None,
        }
        Some(())
    }
}

/// A variable's name and value; without `=` the value is empty.
#[must_use]
pub fn variable(entry: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = entry.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
    (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(bytes.get(at + 1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hostile_text_is_read_as_it_was_written() {
        let hostile = OsString::from_vec(b"A=\"quote\n' \\ \xff\xc3\xa9 -- init=/bin/sh".to_vec());
        let config = Config {
            args: vec!["/app/bin/app".into(), OsString::new(), hostile.clone()],
            env: vec![hostile, "EMPTY=".into()],
            hosts: vec!["127.0.0.1 internal.yesterday.localhost".into()],
            hostname: "shop".into(),
            ca: Some(b"-----BEGIN".to_vec()),
            tmp_bytes: 1 << 40,
            open_files: 1024,
            processes: 9,
            stop_ms: 5000,
            shares: true,
            base: false,
            way_out: "198.18.0.2/30 198.18.0.1".parse().ok(),
            authorities: Some(b"-----BEGIN".to_vec()),
        };
        assert!(config.way_out.is_some_and(|way| way.mask() == Ipv4Addr::new(255, 255, 255, 252)));
        assert_eq!(Config::decode(&config.encode()).unwrap(), config);
        assert_eq!(Config::decode(&Config::default().encode()).unwrap(), Config::default());
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        for bytes in
            [&b""[..], b"arg", b"arg\0", b"arg\0x", b"color\0red\0", b"tmp-bytes\0-1\0", b"base\0yes\0"]
        {
            assert!(Config::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_way_out_is_an_address_with_its_network_and_where_it_leads_on() {
        for text in [
            "",
            "198.18.0.2 198.18.0.1",
            "198.18.0.2/0 198.18.0.1",
            "198.18.0.2/33 198.18.0.1",
            "x/30 198.18.0.1",
        ] {
            assert_eq!(text.parse::<WayOut>(), Err(()), "{text}");
        }
        let whole: WayOut = "192.0.2.1/32 192.0.2.2".parse().unwrap();
        assert_eq!(whole.mask(), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn a_variable_ends_at_its_first_equals_sign() {
        assert_eq!(variable(OsStr::new("A=b=c")), (OsStr::new("A"), OsStr::new("b=c")));
        assert_eq!(variable(OsStr::new("A")), (OsStr::new("A"), OsStr::new("")));
    }
}
