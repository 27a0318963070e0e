//! What the product must answer, asked from outside: over the wire, on the command line, on the disk.
//!
//! One module per question. They run the built `sepal` binary and link no crate of the product, so that a
//! test sees what a client, an operator or a thief sees. Unit tests lie beside the code they test.
//!
//! | module | the question |
//! |---|---|
//! | `slt` | does SQL mean what it means in Postgres and pgvector? (`slt/`) |
//! | `clients`, `rust_client` | do real drivers work? (`clients/`) |
//! | `frames` | does any sequence of bytes end more than its own connection? |
//! | `protocol` | does the conversation go as Postgres' does? |
//! | `auth` | who comes in, and who is thrown out? |
//! | `isolation` | do concurrent transactions see and await each other as in Postgres? (`isolation/specs/`) |
//! | `histories` | do random histories of transactions hold what their isolation level promises? |
//! | `index_build` | does an index build show itself and leave others alone? |
//! | `tenancy` | what does one tenant learn of another? |
//! | `plugins` | what can a hostile plugin do? (`plugins/hostile`) |
//! | `resolvers` | do secrets come from Vault and AWS, and change there? |
//! | `languages` | do plugins in Python and JavaScript run? |
//! | `canary` | does plaintext reach the disk? |
//! | `keys` | where may the root key be, how is it replaced and had back, and what does a dropped tenant leave? |
//! | `crash` | what does kill -9 lose? |
//! | `power_cut` | what does a power cut lose? |
//! | `injected` | what do a death and an error at a write or a sync lose? |
//! | `pipelines` | does every committed change arrive, and does a secret stay one? |
//! | `backups` | does a backup bring everything back, elsewhere, with the recovery key alone? |
//! | `shutdown` | does a server end in peace? |
//! | `bad_input` | what do damaged files and wrong keys do? |
//! | `check_repair` | what do check and repair say of damage, and what do they leave? |
//! | `disk_full` | what does a full disk do? |
//! | `connections` | do many, idle and slow clients disturb the others? |
//! | `tutorial` | does the tutorial of plugin authors work as it is written? |
//! | `tidy` | does the code keep the rules a machine can judge? |

mod auth;
mod backups;
mod bad_input;
mod canary;
mod check_repair;
mod clients;
mod connections;
mod crash;
mod disk_full;
mod frames;
mod histories;
mod http;
mod index_build;
mod injected;
mod isolation;
mod keys;
mod languages;
mod oracle;
mod pipeline_status;
mod pipelines;
mod plugins;
mod power_cut;
mod protocol;
mod resolvers;
mod rust_client;
mod server;
mod shutdown;
mod slt;
mod survivor;
mod tenancy;
mod tidy;
mod tutorial;
mod wire;
