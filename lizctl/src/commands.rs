//! The verbs, one file each: its arguments, the examples of its `--help`, and its action, `run`.

pub(crate) mod audit;
pub(crate) mod audit_log;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod hosts;
pub(crate) mod init_ca;
pub(crate) mod inspect;
pub(crate) mod issue_node;
pub(crate) mod issue_operator;
pub(crate) mod issue_reader;
pub(crate) mod issue_receiver;
pub(crate) mod join;
pub(crate) mod join_token;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod push;
pub(crate) mod query;
pub(crate) mod renew;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod rotate;
pub(crate) mod sign_crl;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod verify_audit;
