BEGIN TRANSACTION;
CREATE TABLE curve_point (
	trial_id INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	steps BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	loss DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_curve_point PRIMARY KEY (trial_id, step), 
	CONSTRAINT fk_curve_point_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
);
INSERT INTO "curve_point" VALUES(1,1,3,8798208.0,5.72834825515747070312e+00,7.70043327600001248356e+00);
INSERT INTO "curve_point" VALUES(1,2,3,17596416.0,5.565998077392578125e+00,7.70469815399997060012e+00);
INSERT INTO "curve_point" VALUES(1,3,3,26394624.0,5.4539356231689453125e+00,7.70791444099995715077e+00);
INSERT INTO "curve_point" VALUES(2,1,3,8896512.0,5.72834825515747070312e+00,5.95825202599996828212e+00);
INSERT INTO "curve_point" VALUES(2,2,3,17793024.0,5.56444311141967773437e+00,5.96348630599993612122e+00);
INSERT INTO "curve_point" VALUES(2,3,3,26689536.0,5.45846033096313476562e+00,5.96820503999993);
INSERT INTO "curve_point" VALUES(3,1,2,11943936.0,5.72834825515747070312e+00,1.69326530000262209796e-02);
INSERT INTO "curve_point" VALUES(3,2,2,23887872.0,5.55578327178955078125e+00,2.38739200000281925895e-02);
CREATE TABLE ledger_entry (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	flops DOUBLE NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_ledger_entry PRIMARY KEY (id), 
	CONSTRAINT fk_ledger_entry_study_id_study FOREIGN KEY(study_id) REFERENCES study (id) ON DELETE CASCADE, 
	CONSTRAINT fk_ledger_entry_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
);
INSERT INTO "ledger_entry" VALUES(1,1,1,'reserve',30000000.0,'2026-11-25 12:49:04.884069');
INSERT INTO "ledger_entry" VALUES(2,1,1,'spend',26394624.0,'2026-11-25 12:49:12.628446');
INSERT INTO "ledger_entry" VALUES(3,1,1,'refund',3605376.0,'2026-11-25 12:49:12.628479');
INSERT INTO "ledger_entry" VALUES(4,1,2,'reserve',30000000.0,'2026-11-25 12:49:12.637753');
INSERT INTO "ledger_entry" VALUES(5,1,2,'spend',26689536.0,'2026-11-25 12:49:18.631772');
INSERT INTO "ledger_entry" VALUES(6,1,2,'refund',3310464.0,'2026-11-25 12:49:18.631828');
INSERT INTO "ledger_entry" VALUES(7,1,3,'reserve',30000000.0,'2026-11-25 12:49:18.661106');
INSERT INTO "ledger_entry" VALUES(8,1,3,'spend',23887872.0,'2026-11-25 12:49:18.720329');
INSERT INTO "ledger_entry" VALUES(9,1,3,'refund',6112128.0,'2026-11-25 12:49:18.720364');
CREATE TABLE nas_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nas_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nas_alembic_version" VALUES('0001');
CREATE TABLE result (
	trial_id INTEGER NOT NULL, 
	error TEXT NOT NULL, 
	bits_per_byte DOUBLE, 
	bits_per_byte_se DOUBLE, 
	loss DOUBLE, 
	steps BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	optimizer_flops DOUBLE NOT NULL, 
	active_flops DOUBLE, 
	activity JSON NOT NULL, 
	stats JSON NOT NULL, 
	seconds DOUBLE NOT NULL, 
	checkpoint TEXT NOT NULL, 
	backend TEXT NOT NULL, 
	CONSTRAINT pk_result PRIMARY KEY (trial_id), 
	CONSTRAINT fk_result_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
);
INSERT INTO "result" VALUES(1,'',3.3678715188102894551e+00,4.77016915126356050302e-02,5.33909821975976228713e+00,3,192,26394624.0,8847360.0,45824.0,'[1.0]','{"routing": {"layers.0.ffn.layers.0": {"active": 1.0, "load": [1.0], "usage": 1.0, "unevenness": 0.0, "near_zero": 0.23028564453125}}}',7.73302510100006657012e+00,'/home/somebody/nas-runs/tiny/trial-0','torch 2.13.0+cpu cpu x1, kernels: numba 0.68.1');
INSERT INTO "result" VALUES(2,'',3.3745487706382348847e+00,4.75913243411307321228e-02,5.3496836898848414421e+00,3,192,26689536.0,37748736.0,46336.0,'[0.125]','{"routing": {"layers.0.ffn.layers.0": {"active": 0.125, "load": [0.068359, 0.09375, 0.332031, 0.039062, 0.152344, 0.134766, 0.078125, 0.101562], "usage": 1.0, "unevenness": 0.18896965185874137, "near_zero": 0.5225677490234375}}}',5.98487636800007294368e+00,'/home/somebody/nas-runs/tiny/trial-1','torch 2.13.0+cpu cpu x1, kernels: numba 0.68.1');
INSERT INTO "result" VALUES(3,'',3.42714198877926268238e+00,4.64747386835794584758e-02,5.43305989820510149002e+00,2,128,23887872.0,18350080.0,62208.0,'[0.25]','{"routing": {"layers.0.ffn.layers.0": {"active": 0.25, "load": [0.240234, 0.253906, 0.25, 0.255859], "usage": 1.0, "unevenness": 0.00029176223486504504, "near_zero": 0.5406265258789062}}}',4.84437489999436365906e-02,'/home/somebody/nas-runs/tiny/trial-2','torch 2.13.0+cpu cpu x1, kernels: numba 0.68.1');
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	config JSON NOT NULL, 
	seed BIGINT NOT NULL, 
	budget_flops DOUBLE NOT NULL, 
	objectives JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	facts JSON NOT NULL, 
	n_trials INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'tiny','{"name": "tiny", "seed": 0, "budget": {"trials": 3, "trial_flops": 30000000.0, "flops": 0.0}, "corpus": {"source": "corpus.txt", "name": "", "split": "train", "revision": "", "text_field": "text", "max_bytes": 0, "tokenizer": "", "validation": 0.05, "test": 0.05}, "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32, "reference_d_ff": 128, "rope_theta": 10000.0}, "recipe": {"batch_size": 2, "lr": 0.01, "matrix_lr": 0.007, "weight_decay": 0.0, "warmup": 0.02, "decay": 0.3, "grad_clip": 1.0}, "space": {"methods": ["dense", "topk", "hash", "avgk", "direct", "product_key", "straight_through", "relu_routing"], "match": "free", "active_width": [0.5, 1.0, 2.0], "expansion": [2.0, 4.0, 8.0], "granularity": [1, 2, 4, 8], "depth": [1, 2], "activation": ["gelu", "relu", "silu"], "gated": [false, true], "shared_width": [0.0, 0.25], "output_gate": [false, true], "lr_multiplier": {"low": 0.5, "high": 2.0, "log": true}, "width_multiple": 4, "topk": {"gate": ["softmax", "sigmoid"], "normalize": [false, true], "balance_weight": {"low": 0.0, "high": 0.03, "log": false}, "z_weight": {"low": 0.0, "high": 0.003, "log": false}, "entropy_weight": {"low": 0.0, "high": 0.003, "log": false}, "bias_rate": {"low": 0.0, "high": 0.003, "log": false}}, "hash": {"balanced": [true, false], "seed": [0]}, "straight_through": {"expansion": [1.0, 2.0], "tau": {"low": 0.2, "high": 0.8, "log": false}, "sparsity_weight": {"low": 0.01, "high": 1.0, "log": true}, "renormalize": [true, false]}, "relu_routing": {"l1_start": [1e-08], "l1_factor": [1.2]}, "product_key": {"heads": [4, 8], "k": [8, 16, 32], "expansion": [8.0, 32.0], "key_dim": [0.25, 0.5], "expert_width": [1, 4], "gate": ["softmax", "sigmoid"], "query_norm": ["batch", "layer", "none"], "values": ["peer", "pkm"]}}, "objectives": ["bits_per_byte", "active_flops"], "constraints": {}, "warm_start": ["dense", "switch"], "sampler": "tpe", "workers": {"count": 1, "device": "cpu", "gpus_per_trial": 0.0, "threads": 1, "ray_address": ""}, "eval_tokens": 512}',0,90000000.0,'["bits_per_byte", "active_flops"]','finished','{"corpus": {"hash": "ef6a9348d71d80311820ba499542e88c", "request": {"corpus": {"source": "corpus.txt", "name": "", "split": "train", "revision": "", "text_field": "text", "max_bytes": 0, "tokenizer": "", "validation": 0.05, "test": 0.05}, "vocab_size": 300}, "source": "corpus.txt", "commit": "", "vocab_size": 300, "dtype": "uint16", "documents": {"train": 132, "validation": 7, "test": 7}, "bytes": {"train": 137951, "validation": 7288, "test": 7298}, "tokens": {"train": 59576, "validation": 3154, "test": 3178}, "lossless": true, "byte_scale": {"train": 1.0, "validation": 1.0, "test": 1.0}, "eos_id": 0, "split_unit": "section", "source_documents": 1, "replaced_documents": 0}, "corpus_dir": "/home/somebody/.cache/ffn-nas/corpora/ef6a9348d71d80311820ba499542e88c", "ngram_bits_per_byte": {"3": 1.3392536177279588, "4": 1.219050645548749, "5": 1.2212800127337868}, "machine": "x86_64, 2 cores"}',3,'2026-11-25 12:49:04.865480','2026-11-25 12:49:18.723971');
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	spec JSON NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	params JSON NOT NULL, 
	seed BIGINT NOT NULL, 
	source TEXT NOT NULL, 
	train_flops DOUBLE NOT NULL, 
	cost JSON NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	created_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_study_id_study FOREIGN KEY(study_id) REFERENCES study (id) ON DELETE CASCADE, 
	CONSTRAINT uq_trial_study_id_number UNIQUE (study_id, number)
);
INSERT INTO "trial" VALUES(1,1,0,'{"d_ff": 128, "expert_width": 128, "depth": 1, "activation": "gelu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','00ed2e93ebccd9c5','{"method": "dense", "depth": 1, "output_gate": false, "activation": "gelu", "gated": false, "lr_multiplier": 1.0, "active_width": 1.0}',0,'dense',30000000.0,'{"forward_flops": 45824.0, "active_flops": 45824.0, "training_flops": 137472.0, "total_params": 22016, "active_params": 22016.0, "param_bytes": 88064, "activation_bytes": 2184.0, "decode_bytes": 88064.0}','finished','2026-11-25 12:49:04.882786','2026-11-25 12:49:12.626171');
INSERT INTO "trial" VALUES(2,1,1,'{"d_ff": 1024, "expert_width": 128, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "topk", "k": 1, "gate": "softmax", "normalize": false, "balance_weight": 0.01, "z_weight": 0.0, "entropy_weight": 0.0, "bias_rate": 0.0}}','1d3fc425fe20ae72','{"method": "topk", "depth": 1, "output_gate": false, "shared_width": 0.0, "activation": "relu", "gated": false, "lr_multiplier": 1.0, "granularity": 1, "expansion": 8.0, "topk.gate": "softmax", "topk.balance_weight": 0.01, "topk.z_weight": 0.0, "topk.entropy_weight": 0.0, "topk.bias_rate": 0.0, "active_width": 1.0}',0,'switch',30000000.0,'{"forward_flops": 46336.0, "active_flops": 46336.0, "training_flops": 139008.0, "total_params": 79616, "active_params": 22272.0, "param_bytes": 318464, "activation_bytes": 2240.0, "decode_bytes": 89088.0}','finished','2026-11-25 12:49:12.637232','2026-11-25 12:49:18.630205');
INSERT INTO "trial" VALUES(3,1,2,'{"d_ff": 1024, "expert_width": 256, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.7734051705622862, "selection": {"method": "hash", "k": 1, "balanced": true, "seed": 0}}','429da5ee2c608636','{"method": "hash", "depth": 1, "output_gate": false, "shared_width": 0.0, "activation": "relu", "gated": false, "lr_multiplier": 1.7734051705622862, "granularity": 1, "expansion": 4.0, "hash.balanced": true, "hash.seed": 0, "active_width": 2.0}',0,'tpe',30000000.0,'{"forward_flops": 62208.0, "active_flops": 62208.0, "training_flops": 186624.0, "total_params": 79360, "active_params": 30208.0, "param_bytes": 317440, "activation_bytes": 2704.0, "decode_bytes": 120832.0}','finished','2026-11-25 12:49:18.660103','2026-11-25 12:49:18.719150');
CREATE INDEX ix_trial_study_id_key ON trial (study_id, "key");
CREATE INDEX ix_ledger_entry_study_id ON ledger_entry (study_id);
COMMIT;
