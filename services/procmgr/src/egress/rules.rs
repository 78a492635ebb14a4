//! The packet filter's rules for boxes that reach the internet: one table of our own, replaced as a whole. Text from values, no
//! more. A way out is no way in: neither for the world nor for who else is on the machine.
//!
//! Rules of others stay in force beside them: what is refused here can't be allowed elsewhere, and the other way round.

use std::net::Ipv4Addr;

use super::Network;

/// What is not the internet, beside the machine's own addresses, which the kernel knows better: this network, loopback, link-local
/// (where clouds keep credentials), and all that isn't one host's.
const NOT_INTERNET: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3";
/// What a box is told of a way that there isn't, so that nothing waits for it.
const REFUSE: &str = "reject with icmpx admin-prohibited";
/// What asks for a name.
const NAMES: &str = "meta l4proto { tcp, udp } th dport 53";

/// What the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Name of the table.
    pub table: String,
    /// How the names of interfaces begin that lead to boxes.
    pub links: String,
    /// The addresses of the boxes.
    pub network: Network,
    /// The interfaces that lead to the internet.
    pub uplinks: Vec<String>,
    /// The interfaces that forward for the boxes' sake alone.
    pub guarded: Vec<String>,
    /// Who answers boxes that ask for names, if anybody.
    pub resolver: Option<Ipv4Addr>,
}

impl Rules {
    /// What takes them back. Works whether or not they are there.
    pub(super) fn removal(&self) -> String {
        let table = &self.table;
        format!("table inet {table}\ndelete table inet {table}\n")
    }

    /// What puts them in force in one step, in place of those before.
    pub(super) fn text(&self) -> String {
        let Self { table, links, network, .. } = self;
        let (names, translation, forward) = (self.names(), self.translation(), self.forward());
        format!(
            "{}table inet {table} {{
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname != \"{links}*\" return
    meta nfproto ipv6 drop
    ip saddr != {network} drop
    fib saddr . iif oif missing drop
    {names}
    fib daddr type != unicast {REFUSE}
    ip daddr {{ {network}, {NOT_INTERNET} }} {REFUSE}
  }}
  chain names {{
    type nat hook prerouting priority dstnat; policy accept;
    {translation}
  }}
  chain local_in {{
    type filter hook input priority filter; policy accept;
    iifname \"{links}*\" drop
  }}
  chain local_out {{
    type filter hook output priority filter; policy accept;
    oifname \"{links}*\" meta l4proto != icmp ct state != {{ established, related }} {REFUSE}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
{forward}  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} oifname != \"{links}*\" masquerade
  }}
}}
",
            self.removal(),
        )
    }

    /// Lets questions for names pass that are put to the machine.
    fn names(&self) -> String {
        self.resolver.map(|_| format!("ip daddr {} {NAMES} accept", self.network)).unwrap_or_default()
    }

    /// Has the resolver answer what the machine is asked, also where it is a link-local one.
    fn translation(&self) -> String {
        let Some(resolver) = self.resolver else { return String::new() };
        format!("iifname \"{}*\" ip daddr {} {NAMES} dnat ip to {resolver}", self.links, self.network)
    }

    /// Boxes to the internet and answers back, and nothing that the machine didn't forward before.
    fn forward(&self) -> String {
        let links = &self.links;
        let (uplinks, guarded) = (quoted(&self.uplinks), quoted(&self.guarded));
        let refuse = match uplinks.is_empty() {
            true => REFUSE.to_owned(),
            false => format!("oifname != {{ {uplinks} }} {REFUSE}"),
        };
        let mut lines = vec![
            format!("iifname \"{links}*\" {refuse}"),
            format!("oifname \"{links}*\" ct state != {{ established, related }} drop"),
        ];
        if !guarded.is_empty() {
            lines.push(format!("iifname {{ {guarded} }} oifname != \"{links}*\" drop"));
        }
        lines.iter().flat_map(|line| ["    ", line, "\n"]).collect()
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            table: "nexushub_ab12".into(),
            links: "nhab12-".into(),
            network: Network(Ipv4Addr::new(198, 18, 0, 0)),
            uplinks: vec!["eth0".into(), "wlan0".into()],
            guarded: vec!["eth0".into()],
            resolver: Some(Ipv4Addr::new(169, 254, 169, 253)),
        }
    }

    fn chain(text: &str, name: &str) -> Vec<String> {
        let after = text.lines().skip_while(|line| line.trim() != format!("chain {name} {{")).skip(2);
        after.map(str::trim).take_while(|line| *line != "}").map(str::to_owned).collect()
    }

    #[test]
    fn the_whole_table_is_replaced_in_one_step() {
        let text = rules().text();
        let removal = "table inet nexushub_ab12\ndelete table inet nexushub_ab12\n";
        assert!(text.starts_with(&format!("{removal}table inet nexushub_ab12 {{\n")), "{text}");
        assert_eq!(rules().removal(), removal);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn nothing_that_arrives_from_a_box_is_the_machines_but_questions_for_names() {
        let text = rules().text();
        assert_eq!(chain(&text, "local_in"), ["iifname \"nhab12-*\" drop"]);
        let arriving = chain(&text, "arriving");
        let at = |rule: &str| arriving.iter().position(|line| line.contains(rule));
        assert_eq!(at("!= \"nhab12-*\" return"), Some(0), "only boxes are meant");
        assert_eq!(at("ip saddr != 198.18.0.0/18 drop"), Some(2), "nobody sends as somebody else");
        assert_eq!(at("fib saddr . iif oif missing drop"), Some(3), "nor as another box");
        assert!(at("dport 53 accept") < at("fib daddr type != unicast reject"));
        assert!(
            arriving.last().is_some_and(|line| line.contains("169.254.0.0/16") && line.contains("reject"))
        );
        let asked = "ip daddr 198.18.0.0/18 meta l4proto { tcp, udp } th dport 53 dnat ip to 169.254.169.253";
        assert_eq!(chain(&text, "names"), [format!("iifname \"nhab12-*\" {asked}")]);
        let silent = Rules { resolver: None, ..rules() }.text();
        assert!(!silent.contains("dport 53") && !silent.contains("dnat"));
    }

    #[test]
    fn who_else_is_on_the_machine_does_not_reach_into_a_box_by_its_way_out() {
        let text = rules().text();
        let refused = "oifname \"nhab12-*\" meta l4proto != icmp ct state != { established, related } reject";
        assert!(chain(&text, "local_out").iter().any(|line| line.starts_with(refused)), "{text}");
    }

    #[test]
    fn boxes_are_forwarded_to_the_internet_alone_and_nobody_else_is_where_nobody_was() {
        let forward = |rules: Rules| chain(&rules.text(), "forward");
        let out =
            "iifname \"nhab12-*\" oifname != { \"eth0\", \"wlan0\" } reject with icmpx admin-prohibited";
        let back = "oifname \"nhab12-*\" ct state != { established, related } drop";
        let others = "iifname { \"eth0\" } oifname != \"nhab12-*\" drop";
        assert_eq!(forward(rules()), [out, back, others]);
        assert_eq!(forward(Rules { guarded: vec![], ..rules() }), [out, back], "a router stays one");
        let cut_off = forward(Rules { uplinks: vec![], guarded: vec![], ..rules() });
        assert_eq!(cut_off, ["iifname \"nhab12-*\" reject with icmpx admin-prohibited", back]);
    }
}
