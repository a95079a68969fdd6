//! Network policy: classifies hosts as public or not. Addresses of this host and of private networks can be
//! refused.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use reqwest::{
    ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};

/// Most redirects that are followed.
const REDIRECTS: usize = 5;

/// Time limit of connecting.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A host that is not public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is not a public address: those of this network are refused here")]
pub struct Private {
    /// Its name or address.
    pub host: String,
}

/// Returns whether an address is reachable from the whole Internet.
///
/// Source: the IANA registries of special-purpose addresses (RFC 6890), as of 2024.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        // Carrier-grade NAT; IETF protocol assignments; 6to4 relays; benchmarks; reserved addresses and
        // broadcast.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let within = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b) {
        // An embedded IPv4 address: mapped, translated (NAT64), or of 6to4.
        (0, 0) if [c, d, e, f] == [0, 0, 0, 0xffff] => within(g, h),
        (0x64, 0xff9b) if [c, d, e, f] == [0, 0, 0, 0] => within(g, h),
        (0x2002, _) => within(b, c),
        // Teredo and others of the IETF, and documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        // Global unicast addresses that are assigned so far.
        _ => (0x2000..0x4000).contains(&a),
    }
}

/// Checks a URL's host by its text: an IP address must be public.
///
/// # Errors
/// Returns an error if the host is an address that is not public.
pub fn check_host(host: &str) -> Result<(), Private> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) if !is_public(address) => Err(Private { host: bare.to_owned() }),
        _ => Ok(()),
    }
}

/// Makes a client connect to public addresses only, after name resolution and after redirects. IP addresses
/// in a URL itself are checked by [`check_host`]: the resolver does not see them.
pub fn public_only(client: ClientBuilder) -> ClientBuilder {
    // A proxy would resolve names itself.
    client
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .dns_resolver(std::sync::Arc::new(PublicOnly))
        .redirect(Policy::custom(follow))
}

fn follow(attempt: Attempt) -> reqwest::redirect::Action {
    let checked = attempt.url().host_str().map_or(Ok(()), check_host);
    match checked {
        Err(private) => attempt.error(private),
        Ok(()) if attempt.previous().len() > REDIRECTS => {
            attempt.error("it leads from one place to the next without an end")
        }
        Ok(()) => attempt.follow(),
    }
}

/// Checks a URL's host like [`check_host`].
///
/// # Errors
/// Returns the errors of [`check_host`].
pub fn check_url(url: &Url) -> Result<(), Private> {
    url.host_str().map_or(Ok(()), check_host)
}

struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(Private { host }.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_differ_from_public_ones() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        assert!(check_host("[::1]").is_err() && check_host("10.0.0.1").is_err());
        assert!(check_host("example.com").is_ok() && check_host("1.1.1.1").is_ok());
        // URLs are parsed first: there are many ways to write an address.
        for url in ["http://0x7f.1/", "http://2130706433/", "http://127.1/", "http://[::ffff:7f00:1]/"] {
            assert!(check_url(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_here_is_refused() {
        let client = public_only(reqwest::Client::builder()).build().unwrap();
        let error = client.get("http://localhost:9/").send().await.unwrap_err();
        let mut link: Option<&dyn std::error::Error> = Some(&error);
        let mut found = false;
        while let Some(e) = link {
            found |= e.is::<Private>();
            link = e.source();
        }
        assert!(found, "{error:?}");
    }
}
