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
INSERT INTO "curve_point" VALUES(1,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(1,2,3,16000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(2,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(2,2,3,16000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(3,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(3,2,3,16000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(4,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(4,2,3,16000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(5,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(5,2,3,16000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(6,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(6,2,3,16000000.0,4.5,2.0);
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
INSERT INTO "ledger_entry" VALUES(1,1,1,'reserve',30000000.0,'2026-11-25 15:46:42.528637');
INSERT INTO "ledger_entry" VALUES(2,1,1,'spend',25000000.0,'2026-11-25 15:46:42.532653');
INSERT INTO "ledger_entry" VALUES(3,1,1,'refund',5000000.0,'2026-11-25 15:46:42.532682');
INSERT INTO "ledger_entry" VALUES(4,1,2,'reserve',30000000.0,'2026-11-25 15:46:42.539297');
INSERT INTO "ledger_entry" VALUES(5,1,2,'spend',25000001.0,'2026-11-25 15:46:42.540925');
INSERT INTO "ledger_entry" VALUES(6,1,2,'refund',4999999.0,'2026-11-25 15:46:42.540949');
INSERT INTO "ledger_entry" VALUES(7,1,3,'reserve',30000000.0,'2026-11-25 15:46:42.543722');
INSERT INTO "ledger_entry" VALUES(8,1,3,'spend',25000002.0,'2026-11-25 15:46:42.545072');
INSERT INTO "ledger_entry" VALUES(9,1,3,'refund',4999998.0,'2026-11-25 15:46:42.545093');
INSERT INTO "ledger_entry" VALUES(10,1,4,'reserve',30000000.0,'2026-11-25 15:46:42.547690');
INSERT INTO "ledger_entry" VALUES(11,1,4,'spend',25000003.0,'2026-11-25 15:46:42.548956');
INSERT INTO "ledger_entry" VALUES(12,1,4,'refund',4999997.0,'2026-11-25 15:46:42.548976');
INSERT INTO "ledger_entry" VALUES(13,1,5,'reserve',30000000.0,'2026-11-25 15:46:42.551408');
INSERT INTO "ledger_entry" VALUES(14,1,6,'reserve',30000000.0,'2026-11-25 15:46:42.553427');
INSERT INTO "ledger_entry" VALUES(15,1,6,'spend',25000005.0,'2026-11-25 15:46:42.554703');
INSERT INTO "ledger_entry" VALUES(16,1,6,'refund',4999995.0,'2026-11-25 15:46:42.554723');
CREATE TABLE nas_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nas_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nas_alembic_version" VALUES('0002');
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
	backend TEXT NOT NULL, checkpoint_digest TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_result PRIMARY KEY (trial_id), 
	CONSTRAINT fk_result_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE
);
INSERT INTO "result" VALUES(1,'',2.5,0.01,4.0,3,192,25000000.0,1000000.0,1000.0,'[1.0]','{"routing": {}}',1.5,'trial-0','torch','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd');
INSERT INTO "result" VALUES(2,'it diverged',NULL,NULL,NULL,0,192,25000001.0,1000000.0,NULL,'[1.0]','{"routing": {}}',1.5,'','torch','');
INSERT INTO "result" VALUES(3,'it failed',NULL,NULL,NULL,0,192,25000002.0,1000000.0,NULL,'[1.0]','{"routing": {}}',1.5,'','torch','');
INSERT INTO "result" VALUES(4,'it stopped',NULL,NULL,NULL,0,192,25000003.0,1000000.0,NULL,'[1.0]','{"routing": {}}',1.5,'','torch','');
INSERT INTO "result" VALUES(6,'',3.0,0.01,4.0,3,192,25000005.0,1000000.0,1005.0,'[1.0]','{"routing": {}}',1.5,'trial-5','torch','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd');
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
	ended_at DATETIME, uid VARCHAR(32) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'old','{"name": "old", "seed": 0, "budget": {"trials": 5, "trial_flops": 30000000.0, "flops": 0.0}, "corpus": {"source": "stdlib", "name": "", "split": "train", "revision": "", "text_field": "text", "max_bytes": 0, "tokenizer": "", "validation": 0.05, "test": 0.05}, "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32, "reference_d_ff": 64, "rope_theta": 10000.0}, "recipe": {"batch_size": 8, "lr": 0.01, "matrix_lr": 0.007, "weight_decay": 0.0, "warmup": 0.02, "decay": 0.3, "grad_clip": 1.0}, "space": {"methods": ["dense", "topk", "hash", "avgk", "direct", "product_key", "straight_through", "relu_routing"], "match": "free", "active_width": [0.5, 1.0, 2.0], "expansion": [2.0, 4.0, 8.0], "granularity": [1, 2, 4, 8], "depth": [1, 2], "activation": ["gelu", "relu", "silu"], "gated": [false, true], "shared_width": [0.0, 0.25], "output_gate": [false, true], "lr_multiplier": {"low": 0.5, "high": 2.0, "log": true}, "width_multiple": 4, "topk": {"gate": ["softmax", "sigmoid"], "normalize": [false, true], "balance_weight": {"low": 0.0, "high": 0.03, "log": false}, "z_weight": {"low": 0.0, "high": 0.003, "log": false}, "entropy_weight": {"low": 0.0, "high": 0.003, "log": false}, "bias_rate": {"low": 0.0, "high": 0.003, "log": false}}, "hash": {"balanced": [true, false], "seed": [0]}, "straight_through": {"expansion": [1.0, 2.0], "tau": {"low": 0.2, "high": 0.8, "log": false}, "sparsity_weight": {"low": 0.01, "high": 1.0, "log": true}, "renormalize": [true, false]}, "relu_routing": {"l1_start": [1e-08], "l1_factor": [1.2]}, "product_key": {"heads": [4, 8], "k": [8, 16, 32], "expansion": [8.0, 32.0], "key_dim": [0.25, 0.5], "expert_width": [1, 4], "gate": ["softmax", "sigmoid"], "query_norm": ["batch", "layer", "none"], "values": ["peer", "pkm"]}}, "objectives": ["bits_per_byte", "active_flops"], "constraints": {}, "warm_start": ["dense"], "sampler": "tpe", "workers": {"count": 0, "device": "auto", "gpus_per_trial": 0.0, "threads": 1, "ray_address": ""}, "eval_tokens": 65536}',0,150000000.0,'["bits_per_byte", "active_flops"]','running','{"corpus": {"hash": "abc", "source": "stdlib"}, "corpus_dir": "/tmp/none", "ngram_bits_per_byte": {"3": 2.5}, "machine": "x", "runs": "nas-runs/old"}',6,'2026-11-25 15:46:42.511280',NULL,'75782e8fd6064957bd8ae2662aa9983d');
INSERT INTO "study" VALUES(2,'empty','{"name": "old", "seed": 0, "budget": {"trials": 5, "trial_flops": 30000000.0, "flops": 0.0}, "corpus": {"source": "stdlib", "name": "", "split": "train", "revision": "", "text_field": "text", "max_bytes": 0, "tokenizer": "", "validation": 0.05, "test": 0.05}, "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32, "reference_d_ff": 64, "rope_theta": 10000.0}, "recipe": {"batch_size": 8, "lr": 0.01, "matrix_lr": 0.007, "weight_decay": 0.0, "warmup": 0.02, "decay": 0.3, "grad_clip": 1.0}, "space": {"methods": ["dense", "topk", "hash", "avgk", "direct", "product_key", "straight_through", "relu_routing"], "match": "free", "active_width": [0.5, 1.0, 2.0], "expansion": [2.0, 4.0, 8.0], "granularity": [1, 2, 4, 8], "depth": [1, 2], "activation": ["gelu", "relu", "silu"], "gated": [false, true], "shared_width": [0.0, 0.25], "output_gate": [false, true], "lr_multiplier": {"low": 0.5, "high": 2.0, "log": true}, "width_multiple": 4, "topk": {"gate": ["softmax", "sigmoid"], "normalize": [false, true], "balance_weight": {"low": 0.0, "high": 0.03, "log": false}, "z_weight": {"low": 0.0, "high": 0.003, "log": false}, "entropy_weight": {"low": 0.0, "high": 0.003, "log": false}, "bias_rate": {"low": 0.0, "high": 0.003, "log": false}}, "hash": {"balanced": [true, false], "seed": [0]}, "straight_through": {"expansion": [1.0, 2.0], "tau": {"low": 0.2, "high": 0.8, "log": false}, "sparsity_weight": {"low": 0.01, "high": 1.0, "log": true}, "renormalize": [true, false]}, "relu_routing": {"l1_start": [1e-08], "l1_factor": [1.2]}, "product_key": {"heads": [4, 8], "k": [8, 16, 32], "expansion": [8.0, 32.0], "key_dim": [0.25, 0.5], "expert_width": [1, 4], "gate": ["softmax", "sigmoid"], "query_norm": ["batch", "layer", "none"], "values": ["peer", "pkm"]}}, "objectives": ["bits_per_byte", "active_flops"], "constraints": {}, "warm_start": ["dense"], "sampler": "tpe", "workers": {"count": 0, "device": "auto", "gpus_per_trial": 0.0, "threads": 1, "ray_address": ""}, "eval_tokens": 65536}',1,1000000000.0,'["bits_per_byte"]','running','{}',0,'2026-11-25 15:46:42.556137',NULL,'a4768f8ceff843a5a614007205dd0809');
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
INSERT INTO "trial" VALUES(1,1,0,'{"d_ff": 64, "expert_width": 64, "depth": 1, "activation": "gelu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','45fe608e8ec0ab34','{}',0,'dense',30000000.0,'{"forward_flops": 16768.0, "active_flops": 16768.0, "training_flops": 50304.0, "total_params": 7936, "active_params": 7936.0, "param_bytes": 31744, "activation_bytes": 1096.0, "decode_bytes": 31744.0}','finished','2026-11-25 15:46:42.523284','2026-11-25 15:46:42.530921');
INSERT INTO "trial" VALUES(2,1,1,'{"d_ff": 512, "expert_width": 64, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "topk", "k": 1, "gate": "softmax", "normalize": false, "balance_weight": 0.01, "z_weight": 0.0, "entropy_weight": 0.0, "bias_rate": 0.0}}','aeab688c36ef89d8','{}',0,'switch',30000000.0,'{"forward_flops": 17024.0, "active_flops": 17024.0, "training_flops": 51072.0, "total_params": 22400, "active_params": 8064.0, "param_bytes": 89600, "activation_bytes": 1152.0, "decode_bytes": 32256.0}','diverged','2026-11-25 15:46:42.537675','2026-11-25 15:46:42.540262');
INSERT INTO "trial" VALUES(3,1,2,'{"d_ff": 512, "expert_width": 64, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "hash", "k": 1, "balanced": true, "seed": 0}}','74cd8f7121c0df01','{}',0,'hash',30000000.0,'{"forward_flops": 16768.0, "active_flops": 16768.0, "training_flops": 50304.0, "total_params": 22272, "active_params": 7936.0, "param_bytes": 89088, "activation_bytes": 1104.0, "decode_bytes": 31744.0}','failed','2026-11-25 15:46:42.542423','2026-11-25 15:46:42.544487');
INSERT INTO "trial" VALUES(4,1,3,'{"d_ff": 64, "expert_width": 8, "depth": 2, "activation": "silu", "gated": true, "shared_width": 0, "output_gate": true, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','7ecde8e9932bee04','{"method": "x"}',0,'finedeep',30000000.0,'{"forward_flops": 19072.0, "active_flops": 19072.0, "training_flops": 57216.0, "total_params": 9104, "active_params": 9104.0, "param_bytes": 36416, "activation_bytes": 2508.0, "decode_bytes": 36416.0}','stopped','2026-11-25 15:46:42.546497','2026-11-25 15:46:42.548393');
INSERT INTO "trial" VALUES(5,1,4,'{"d_ff": 512, "expert_width": 8, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "avgk", "k": 8}}','18f9b9f2c32dd4f7','{"method": "x"}',0,'avgk',30000000.0,'{"forward_flops": 18816.0, "active_flops": 18816.0, "training_flops": 52352.0, "total_params": 22272, "active_params": 7936.0, "param_bytes": 89088, "activation_bytes": 1160.0, "decode_bytes": 35840.0}','running','2026-11-25 15:46:42.550314',NULL);
INSERT INTO "trial" VALUES(6,1,5,'{"d_ff": 256, "expert_width": 16, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "topk", "k": 4, "gate": "sigmoid", "normalize": false, "balance_weight": 0.0, "z_weight": 0.0, "entropy_weight": 0.001, "bias_rate": 0.0}}','7cf93eb259c32de4','{"method": "x"}',0,'sigma_moe',30000000.0,'{"forward_flops": 17280.0, "active_flops": 17280.0, "training_flops": 51840.0, "total_params": 14336, "active_params": 8192.0, "param_bytes": 57344, "activation_bytes": 1256.0, "decode_bytes": 32768.0}','finished','2026-11-25 15:46:42.552279','2026-11-25 15:46:42.554149');
CREATE INDEX ix_trial_study_id_key ON trial (study_id, "key");
CREATE INDEX ix_ledger_entry_study_id ON ledger_entry (study_id);
CREATE UNIQUE INDEX ix_study_uid ON study (uid);
COMMIT;
