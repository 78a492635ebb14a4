//! Who may open what: a rule for the user goes before one for everybody, a refusal before a grant of the same kind, and
//! without any rule the answer is no, but for administrators and an app that is not kept here.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum RuleType {
    Accept,
    Deny,
}

/// Of whom it says that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum SubjectType {
    User,
    /// The one group that there is: every user.
    Group,
}

/// A rule about one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    pub id: i64,
    pub application_id: String,
    pub rule_type: RuleType,
    pub subject_type: SubjectType,
    /// A user's id; 0 for the group.
    pub subject_id: i64,
    pub created_at: String,
}

/// Whether the rules about an application let a user in, if they say anything of them.
pub(crate) fn granted<'a>(rules: &(impl Iterator<Item = &'a Rule> + Clone), user: i64) -> Option<bool> {
    let say = |subject: SubjectType| {
        let mut said = rules.clone().filter(move |rule| {
            rule.subject_type == subject && (subject == SubjectType::Group || rule.subject_id == user)
        });
        said.clone().next().map(|_| said.all(|rule| rule.rule_type == RuleType::Accept))
    };
    say(SubjectType::User).or_else(|| say(SubjectType::Group))
}

/// Which of these users the rules about an application let in: what [`granted`] says of each, in one pass over the rules, and of whom
/// they say nothing, those who may `otherwise`.
pub(crate) fn admitted<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    users: impl Iterator<Item = i64>,
    otherwise: &BTreeSet<i64>,
) -> BTreeSet<i64> {
    let (mut own, mut everybody) = (HashMap::new(), None);
    for rule in rules {
        let accepts = rule.rule_type == RuleType::Accept;
        let said = match rule.subject_type {
            SubjectType::User => own.entry(rule.subject_id).or_insert(true),
            SubjectType::Group => everybody.get_or_insert(true),
        };
        *said &= accepts;
    }
    let may = |user: &i64| own.get(user).copied().or(everybody).unwrap_or_else(|| otherwise.contains(user));
    users.filter(may).collect()
}

#[cfg(test)]
mod tests {
    use RuleType::{Accept, Deny};
    use SubjectType::{Group, User};

    use super::*;

    fn ruled(rules: &[(RuleType, SubjectType, i64)]) -> Vec<Rule> {
        let rule = |&(rule_type, subject_type, subject_id): &(RuleType, SubjectType, i64)| Rule {
            id: 0,
            application_id: "a".into(),
            rule_type,
            subject_type,
            subject_id,
            created_at: String::new(),
        };
        rules.iter().map(rule).collect()
    }

    fn may(rules: &[(RuleType, SubjectType, i64)]) -> bool {
        granted(&ruled(rules).iter(), 7).unwrap_or(false)
    }

    #[test]
    fn all_at_once_are_let_in_as_each_alone_is() {
        let own =
            [(Accept, User, 1), (Deny, User, 2), (Accept, User, 3), (Deny, User, 3), (Accept, User, 99)];
        for everybody in [vec![], vec![Accept], vec![Deny], vec![Accept, Deny]] {
            let all = everybody.iter().map(|rule| (*rule, Group, 0)).chain(own);
            let rules = ruled(&all.collect::<Vec<_>>());
            for otherwise in [BTreeSet::new(), BTreeSet::from([4])] {
                let may = |user: &i64| granted(&rules.iter(), *user).unwrap_or(otherwise.contains(user));
                let each = (1..=5).filter(may).collect();
                assert_eq!(admitted(rules.iter(), 1..=5, &otherwise), each, "{everybody:?} {otherwise:?}");
            }
        }
    }

    #[test]
    fn the_user_goes_before_the_group_a_refusal_before_a_grant_and_nothing_is_no() {
        assert!(!may(&[]));
        assert!(!may(&[(Accept, User, 8)]), "somebody else's");
        assert!(may(&[(Accept, User, 7)]));
        assert!(may(&[(Accept, Group, 0)]));
        assert!(!may(&[(Accept, Group, 0), (Deny, User, 7)]));
        assert!(may(&[(Deny, Group, 0), (Accept, User, 7)]));
        assert!(!may(&[(Accept, User, 7), (Deny, User, 7)]));
        assert!(!may(&[(Deny, Group, 0), (Accept, Group, 0)]));
    }
}
