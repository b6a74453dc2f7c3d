//! Costs of stored blocks beside those of recomputing them: sizes, rates and prices come in; bytes, times, money
//! and a verdict go out. It knows no model, no device and no store.
//!
//! All numbers are `f64`, but for bytes of a store, which are exact (`u128`). Money is in US dollars, a month has
//! 730 hours, a GB has 10^9 bytes. A device counts by the share of it that is busy.

/// Seconds of a month.
pub const MONTH_SECONDS: f64 = 730.0 * 3600.0;
/// Bytes of a GB, for which rent is paid.
const GB: f64 = 1e9;

/// Floating-point operations of a decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoderWork {
    /// Operations for a token without attention: two for each weight of the layers.
    pub flops_per_token: f64,
    /// Operations of attention for a token that sees one position, all layers and heads together.
    pub flops_per_pair: f64,
    /// Operations of the language-model head for a token whose log-probability counts; 0 for scorers that read a
    /// few logits alone.
    pub flops_per_scored_token: f64,
}

impl DecoderWork {
    /// Returns the operations that make a block of `tokens`. The masked half of attention is computed, so it
    /// counts.
    #[must_use]
    pub fn prefill_flops(&self, tokens: f64) -> f64 {
        tokens * (self.flops_per_token + self.flops_per_pair * tokens)
    }

    /// Returns the operations that score a query of `query_tokens` behind a block of `tokens`.
    #[must_use]
    pub fn query_flops(&self, query_tokens: f64, tokens: f64) -> f64 {
        let attention = self.flops_per_pair * (tokens + query_tokens);
        query_tokens * (self.flops_per_token + attention + self.flops_per_scored_token)
    }
}

/// Work of one device on a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockWork {
    /// Size of the stored block, in bytes.
    pub bytes: u64,
    /// Seconds to compute the block.
    pub prefill_seconds: f64,
    /// Seconds to score a query on the block.
    pub query_seconds: f64,
}

impl BlockWork {
    /// Returns the seconds of scoring a query on a block that is computed for it.
    #[must_use]
    pub fn recompute_seconds(&self) -> f64 {
        self.prefill_seconds + self.query_seconds
    }

    /// Returns the bandwidth from which on loading a block is faster than computing it, in bytes a second.
    #[must_use]
    pub fn break_even_bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.prefill_seconds
    }
}

/// Amount of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryLoad {
    /// Number of blocks.
    pub blocks: u64,
    /// Number of candidates of a query, one block each.
    pub depth: f64,
    /// Queries a second, on average over a month.
    pub queries_per_second: f64,
    /// Blocks that are computed anew in a month, as a share of all.
    pub changed_a_month: f64,
}

impl QueryLoad {
    /// Returns the queries of a month.
    #[must_use]
    pub fn queries_a_month(&self) -> f64 {
        self.queries_per_second * MONTH_SECONDS
    }

    /// Returns how often a block is read in a month, on average.
    #[must_use]
    pub fn reads_a_month(&self) -> f64 {
        self.queries_a_month() * self.depth / self.blocks.max(1) as f64
    }
}

/// A kind of storage with its price and speed.
#[derive(Clone, Debug, PartialEq)]
pub struct StoragePrice {
    /// Name of the storage.
    pub name: String,
    /// Rent of a GB for a month.
    pub dollars_per_gb_month: f64,
    /// Price of a read of one block.
    pub dollars_per_request: f64,
    /// Bytes a second that one device reads.
    pub bytes_per_second: f64,
    /// Seconds until the first byte of a query's blocks.
    pub latency_seconds: f64,
}

/// Cost of answering queries in one way, without storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComputeCost {
    /// Seconds of a device for a query.
    pub device_seconds_a_query: f64,
    /// Dollars for these seconds.
    pub dollars_a_query: f64,
    /// Devices that the queries of the workload keep busy.
    pub devices: f64,
    /// Dollars for these devices a month.
    pub dollars_a_month: f64,
    /// Queries a second that one device answers.
    pub queries_per_second_a_device: f64,
}

impl ComputeCost {
    fn new(seconds: f64, dollars_per_second: f64, workload: &QueryLoad) -> Self {
        let dollars_a_query = seconds * dollars_per_second;
        Self {
            device_seconds_a_query: seconds,
            dollars_a_query,
            devices: workload.queries_per_second * seconds,
            dollars_a_month: dollars_a_query * workload.queries_a_month(),
            queries_per_second_a_device: 1.0 / seconds,
        }
    }
}

/// Cost of answering queries from a kind of storage that holds all blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageCost {
    /// The storage.
    pub storage: StoragePrice,
    /// Seconds to load a block, without the latency.
    pub load_seconds: f64,
    /// Time of a query on one device: blocks load while earlier ones are scored.
    pub seconds_a_query: f64,
    /// Time of the query with all blocks recomputed, over `seconds_a_query`.
    pub speedup: f64,
    /// Computing, while blocks load, and waiting for them.
    pub compute: ComputeCost,
    /// Rent a month.
    pub rent_dollars_a_month: f64,
    /// Requests a month.
    pub request_dollars_a_month: f64,
    /// Blocks computed anew a month.
    pub change_dollars_a_month: f64,
    /// Sum of computing, rent, requests and changes.
    pub dollars_a_month: f64,
    /// Reads a month of a block from which on it costs less to keep it than to compute it at each read; `None` if
    /// a read is never cheaper or faster.
    pub reads_a_month_break_even: Option<f64>,
    /// Queries a second from which on storing everything costs less than recomputing; `None` if it never does.
    pub queries_per_second_break_even: Option<f64>,
    /// Months after which the build is paid for by what each month saves; `None` if it never is.
    pub build_pays_after_months: Option<f64>,
}

impl StorageCost {
    /// Whether loading and not computing bounds the rate of queries.
    #[must_use]
    pub fn is_load_bound(&self, work: &BlockWork) -> bool {
        self.load_seconds > work.query_seconds
    }

    /// Whether a query is answered sooner than by recomputing.
    #[must_use]
    pub fn is_faster(&self) -> bool {
        self.speedup > 1.0
    }
}

/// Costs of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Bytes of all blocks.
    pub bytes: u128,
    /// Seconds of a device to compute all blocks.
    pub build_device_seconds: f64,
    /// Dollars for these seconds.
    pub build_dollars: f64,
    /// Every block computed for each query.
    pub recompute: ComputeCost,
    /// Blocks that are there when they are needed.
    pub reuse: ComputeCost,
    /// Each kind of storage.
    pub storages: Vec<StorageCost>,
}

impl Costs {
    /// Computes the costs of a workload. All numbers are finite; seconds, rates and counts are above 0.
    #[must_use]
    pub fn new(
        work: &BlockWork,
        workload: &QueryLoad,
        device_dollars_per_hour: f64,
        storages: &[StoragePrice],
    ) -> Self {
        let price = device_dollars_per_hour / 3600.0;
        let of = |seconds: f64| ComputeCost::new(workload.depth * seconds, price, workload);
        let build_device_seconds = workload.blocks as f64 * work.prefill_seconds;
        let mut costs = Self {
            bytes: u128::from(workload.blocks) * u128::from(work.bytes),
            build_device_seconds,
            build_dollars: build_device_seconds * price,
            recompute: of(work.recompute_seconds()),
            reuse: of(work.query_seconds),
            storages: Vec::new(),
        };
        let of = |storage: &StoragePrice| costs.of_storage(storage, work, workload, price);
        costs.storages = storages.iter().map(of).collect();
        costs
    }

    fn of_storage(
        &self,
        storage: &StoragePrice,
        work: &BlockWork,
        workload: &QueryLoad,
        dollars_per_second: f64,
    ) -> StorageCost {
        let depth = workload.depth;
        let load_seconds = work.bytes as f64 / storage.bytes_per_second;
        let (longer, shorter) =
            (load_seconds.max(work.query_seconds), load_seconds.min(work.query_seconds));
        let compute = ComputeCost::new(depth * longer, dollars_per_second, workload);
        let seconds_a_query = storage.latency_seconds + depth * longer + shorter;
        let rent = self.bytes as f64 / GB * storage.dollars_per_gb_month;
        let changed = self.build_dollars * workload.changed_a_month;
        let requests_a_query = depth * storage.dollars_per_request;
        let requests = requests_a_query * workload.queries_a_month();
        let month = compute.dollars_a_month + rent + requests + changed;
        let positive = |value: f64| Some(value).filter(|value| value.is_finite() && *value > 0.0);
        // A read spares the prefill and costs a request.
        let spared = work.prefill_seconds * dollars_per_second - storage.dollars_per_request;
        let block_rent = work.bytes as f64 / GB * storage.dollars_per_gb_month;
        let is_sooner = longer < work.recompute_seconds();
        let spared_a_query =
            self.recompute.dollars_a_query - compute.dollars_a_query - requests_a_query;
        StorageCost {
            load_seconds,
            seconds_a_query,
            speedup: self.recompute.device_seconds_a_query / seconds_a_query,
            rent_dollars_a_month: rent,
            request_dollars_a_month: requests,
            change_dollars_a_month: changed,
            dollars_a_month: month,
            reads_a_month_break_even: positive(spared)
                .filter(|_| is_sooner)
                .map(|spared| block_rent / spared),
            queries_per_second_break_even: positive(spared_a_query)
                .map(|spared| (rent + changed) / spared / MONTH_SECONDS),
            build_pays_after_months: positive(self.recompute.dollars_a_month - month)
                .map(|saved| self.build_dollars / saved),
            compute,
            storage: storage.clone(),
        }
    }

    /// Whether a kind of storage costs less a month than recomputing.
    #[must_use]
    pub fn is_cheaper(&self, storage: &StorageCost) -> bool {
        storage.dollars_a_month < self.recompute.dollars_a_month
    }

    /// Returns the cheapest kind of storage that answers sooner than recomputing and costs less a month. `None`
    /// says that blocks should be recomputed.
    #[must_use]
    pub fn best(&self) -> Option<&StorageCost> {
        let pays = |storage: &&StorageCost| storage.is_faster() && self.is_cheaper(storage);
        let paying = self.storages.iter().filter(pays);
        paying.min_by(|a, b| a.dollars_a_month.total_cmp(&b.dollars_a_month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gemma-2B in bf16 on an A100 that computes 31,000 tokens a second, at 256 and 20 tokens.
    fn gemma() -> BlockWork {
        let rate = 31_000.0;
        BlockWork {
            bytes: 256 * 18_432 + 8192,
            prefill_seconds: 256.0 / rate,
            query_seconds: 20.0 / rate,
        }
    }

    fn storage(name: &str, price: f64, request: f64) -> StoragePrice {
        StoragePrice {
            name: name.to_owned(),
            dollars_per_gb_month: price,
            dollars_per_request: request,
            bytes_per_second: 8e9,
            latency_seconds: 1e-4,
        }
    }

    fn workload(queries_per_second: f64) -> QueryLoad {
        let blocks = 40_000_000_000_000 / gemma().bytes;
        QueryLoad { blocks, depth: 100.0, queries_per_second, changed_a_month: 0.0 }
    }

    /// Checks a number to 1 %.
    #[track_caller]
    fn about(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() <= 0.01, "{found} is not about {expected}");
    }

    #[test]
    fn reads_a_month_that_keep_a_block() {
        // The rent of S3, of an NVMe volume and of memory, with the prices of the built-in table.
        let storages =
            [storage("s3", 0.023, 4e-7), storage("nvme", 0.08, 0.0), storage("ram", 3.0, 0.0)];
        let costs = Costs::new(&gemma(), &workload(9.0), 2.57, &storages);
        let reads = costs.storages.iter().map(|cost| cost.reads_a_month_break_even.unwrap());
        for (found, expected) in reads.zip([19.8, 64.0, 2400.0]) {
            about(found, expected);
        }
        // SmolLM2 on two cores at 1,400 tokens a second, five cents an hour.
        let work = BlockWork {
            bytes: 256 * 23_040 + 2304,
            prefill_seconds: 256.0 / 1400.0,
            query_seconds: 20.0 / 1400.0,
        };
        let costs = Costs::new(&work, &workload(1.0), 0.05, &storages);
        let reads = costs.storages.iter().map(|cost| cost.reads_a_month_break_even.unwrap());
        for (found, expected) in reads.zip([63.0, 186.0, 7000.0]) {
            about(found, expected);
        }
    }

    #[test]
    fn forty_terabytes_pay_from_less_than_one_query_a_second_on() {
        let costs = Costs::new(&gemma(), &workload(9.0), 2.57, &[storage("disk", 0.03, 0.0)]);
        about(costs.bytes as f64, 40e12);
        about(costs.build_device_seconds / 3600.0, 19.4);
        about(costs.build_dollars, 50.0);
        about(costs.recompute.device_seconds_a_query, 0.89);
        about(costs.recompute.dollars_a_query, 6.4e-4);
        about(8.0 * costs.recompute.queries_per_second_a_device, 9.0);
        about(costs.reuse.device_seconds_a_query, 0.065);
        about(costs.reuse.dollars_a_query, 4.6e-5);
        about(8.0 * costs.reuse.queries_per_second_a_device, 124.0);
        about(costs.recompute.dollars_a_month, 15_009.0);
        let disk = &costs.storages[0];
        about(disk.dollars_a_month, 2290.0);
        about(costs.recompute.dollars_a_month / disk.dollars_a_month, 6.6);
        about(disk.queries_per_second_break_even.unwrap(), 0.775);
        assert_eq!(costs.best().unwrap().storage.name, "disk");
        // At the break-even both cost the same, and below it nothing is worth storing.
        let rate = disk.queries_per_second_break_even.unwrap();
        let at = Costs::new(&gemma(), &workload(rate), 2.57, &[storage("disk", 0.03, 0.0)]);
        let dollars = [at.storages[0].dollars_a_month, at.recompute.dollars_a_month];
        assert!((dollars[0] / dollars[1] - 1.0).abs() < 1e-9, "{dollars:?}");
        let below =
            Costs::new(&gemma(), &workload(0.9 * rate), 2.57, &[storage("disk", 0.03, 0.0)]);
        assert_eq!(below.best(), None);
        assert!(below.storages[0].is_faster());
    }

    #[test]
    fn a_storage_below_the_break_even_bandwidth_is_slower_than_computing() {
        let work = gemma();
        for (factor, faster) in [(0.9, false), (1.2, true)] {
            let bytes_per_second = factor * work.break_even_bytes_per_second();
            let slow = StoragePrice { bytes_per_second, ..storage("disk", 0.0, 0.0) };
            let costs = Costs::new(&work, &workload(9.0), 2.57, &[slow]);
            let cost = &costs.storages[0];
            assert!(cost.is_load_bound(&work));
            // Rent is free here, but a device that waits is paid for too.
            assert_eq!((cost.is_faster(), costs.is_cheaper(cost)), (faster, faster), "{factor}");
            assert_eq!(costs.best().is_some(), faster);
        }
    }

    #[test]
    fn blocks_that_change_are_paid_for_each_month() {
        let changing = QueryLoad { changed_a_month: 730.0, ..workload(9.0) };
        let costs = Costs::new(&gemma(), &changing, 2.57, &[storage("disk", 0.03, 0.0)]);
        let cost = &costs.storages[0];
        about(cost.change_dollars_a_month, 730.0 * costs.build_dollars);
        assert_eq!(costs.best(), None, "a corpus that changes every hour");
        assert_eq!(cost.build_pays_after_months, None);
    }

    #[test]
    fn operations_of_gemma_2b_are_31_000_tokens_a_second_at_two_fifths_of_an_a100() {
        let work = DecoderWork {
            flops_per_token: 2.0 * 18.0 * 110_100_480.0,
            flops_per_pair: 4.0 * 18.0 * 8.0 * 256.0,
            flops_per_scored_token: 0.0,
        };
        about(0.4 * 312e12 * 256.0 / work.prefill_flops(256.0), 31_000.0);
        about(work.query_flops(20.0, 256.0) / (0.4 * 312e12), 20.0 / 31_000.0);
    }
}
