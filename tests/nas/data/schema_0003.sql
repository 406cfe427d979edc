BEGIN TRANSACTION;
CREATE TABLE curve_point (
	evaluation_id INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	steps BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	loss DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_curve_point PRIMARY KEY (evaluation_id, step), 
	CONSTRAINT fk_curve_point_evaluation_id_evaluation FOREIGN KEY(evaluation_id) REFERENCES evaluation (id) ON DELETE CASCADE
);
INSERT INTO "curve_point" VALUES(1,1,3,1000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(1,2,3,2000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(2,1,3,8000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(2,2,3,9000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(3,1,3,1000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(3,2,3,2000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(4,1,3,1000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(4,2,3,2000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(5,1,3,1000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(5,2,3,2000000.0,4.5,2.0);
INSERT INTO "curve_point" VALUES(6,1,3,1000000.0,4.75,1.0);
INSERT INTO "curve_point" VALUES(6,2,3,2000000.0,4.5,2.0);
CREATE TABLE evaluation (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	rung INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	losses INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	lease_until DOUBLE NOT NULL, 
	claimed_at DATETIME, 
	status VARCHAR(16) NOT NULL, 
	until_flops DOUBLE NOT NULL, 
	start_flops DOUBLE NOT NULL, 
	reserved DOUBLE NOT NULL, 
	created_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	error TEXT DEFAULT '' NOT NULL, 
	bits_per_byte DOUBLE, 
	bits_per_byte_se DOUBLE, 
	loss DOUBLE, 
	windows BLOB NOT NULL, 
	steps BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	flops DOUBLE NOT NULL, 
	optimizer_flops DOUBLE NOT NULL, 
	trunk_flops DOUBLE NOT NULL, 
	active_flops DOUBLE, 
	activity JSON NOT NULL, 
	stats JSON NOT NULL, 
	seconds DOUBLE NOT NULL, 
	checkpoint TEXT DEFAULT '' NOT NULL, 
	checkpoint_digest TEXT DEFAULT '' NOT NULL, 
	backend TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_evaluation PRIMARY KEY (id), 
	CONSTRAINT fk_evaluation_study_id_study FOREIGN KEY(study_id) REFERENCES study (id) ON DELETE CASCADE, 
	CONSTRAINT fk_evaluation_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT uq_evaluation_run_id_rung UNIQUE (run_id, rung)
);
INSERT INTO "evaluation" VALUES(1,1,1,0,1,0,'',0.0,NULL,'finished',10000000.0,0.0,0.0,'2026-11-26 19:02:53.133515','2026-11-26 19:02:53.154761','',2.5,0.01,4.0,X'78DA6360606038C060EF000003C6014000',3,192,5000000.0,1000000.0,7000000.0,1000.0,'[1.0]','{"routing": {}}',1.5,'','','torch');
INSERT INTO "evaluation" VALUES(2,1,1,1,1,0,'',0.0,NULL,'finished',30000000.0,7000000.0,0.0,'2026-11-26 19:02:53.165592','2026-11-26 19:02:53.172926','',2.25,0.01,4.0,X'78DA6360606038C060EF000003C6014000',3,192,11500000.0,1000000.0,7000000.0,1000.0,'[1.0]','{"routing": {}}',1.5,'trial-0','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','torch');
INSERT INTO "evaluation" VALUES(3,1,2,1,1,0,'',0.0,NULL,'finished',30000000.0,0.0,0.0,'2026-11-26 19:02:53.175022','2026-11-26 19:02:53.177374','',2.27,0.01,4.0,X'78DA6360606038C060EF000003C6014000',3,192,15000000.0,1000000.0,7000000.0,1000.0,'[1.0]','{"routing": {}}',1.5,'trial-0','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','torch');
INSERT INTO "evaluation" VALUES(4,1,3,0,1,0,'',0.0,NULL,'diverged',10000000.0,0.0,0.0,'2026-11-26 19:02:53.184966','2026-11-26 19:02:53.188377','the loss is nan at step 3',NULL,NULL,NULL,X'',3,192,5000000.0,1000000.0,7000000.0,NULL,'[1.0]','{"routing": {}}',1.5,'','','torch');
INSERT INTO "evaluation" VALUES(5,1,4,0,2,1,'',0.0,'2026-11-26 19:02:53.192927','stopped',10000000.0,0.0,0.0,'2026-11-26 19:02:53.190396','2026-11-26 19:02:53.196968','it stopped',NULL,NULL,NULL,X'',3,192,5000000.0,1000000.0,7000000.0,NULL,'[1.0]','{"routing": {}}',1.5,'','','torch');
INSERT INTO "evaluation" VALUES(6,1,5,0,1,0,'me',1.79571983320500159261e+09,NULL,'running',10000000.0,0.0,10000000.0,'2026-11-26 19:02:53.202151',NULL,'',NULL,NULL,NULL,X'',0,0,0.0,0.0,0.0,NULL,'[]','{}',0.0,'','','');
CREATE TABLE ledger_entry (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	evaluation_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	flops DOUBLE NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_ledger_entry PRIMARY KEY (id), 
	CONSTRAINT fk_ledger_entry_study_id_study FOREIGN KEY(study_id) REFERENCES study (id) ON DELETE CASCADE, 
	CONSTRAINT fk_ledger_entry_evaluation_id_evaluation FOREIGN KEY(evaluation_id) REFERENCES evaluation (id) ON DELETE CASCADE
);
INSERT INTO "ledger_entry" VALUES(1,1,1,'reserve',10000000.0,'2026-11-26 19:02:53.140103');
INSERT INTO "ledger_entry" VALUES(2,1,1,'spend',5000000.0,'2026-11-26 19:02:53.159489');
INSERT INTO "ledger_entry" VALUES(3,1,1,'refund',5000000.0,'2026-11-26 19:02:53.159489');
INSERT INTO "ledger_entry" VALUES(4,1,2,'reserve',23000000.0,'2026-11-26 19:02:53.167091');
INSERT INTO "ledger_entry" VALUES(5,1,2,'spend',11500000.0,'2026-11-26 19:02:53.173715');
INSERT INTO "ledger_entry" VALUES(6,1,2,'refund',11500000.0,'2026-11-26 19:02:53.173715');
INSERT INTO "ledger_entry" VALUES(7,1,3,'reserve',30000000.0,'2026-11-26 19:02:53.175766');
INSERT INTO "ledger_entry" VALUES(8,1,3,'spend',15000000.0,'2026-11-26 19:02:53.177976');
INSERT INTO "ledger_entry" VALUES(9,1,3,'refund',15000000.0,'2026-11-26 19:02:53.177976');
INSERT INTO "ledger_entry" VALUES(10,1,4,'reserve',10000000.0,'2026-11-26 19:02:53.186406');
INSERT INTO "ledger_entry" VALUES(11,1,4,'spend',5000000.0,'2026-11-26 19:02:53.189042');
INSERT INTO "ledger_entry" VALUES(12,1,4,'refund',5000000.0,'2026-11-26 19:02:53.189042');
INSERT INTO "ledger_entry" VALUES(13,1,5,'reserve',10000000.0,'2026-11-26 19:02:53.191546');
INSERT INTO "ledger_entry" VALUES(14,1,5,'spend',5000000.0,'2026-11-26 19:02:53.200671');
INSERT INTO "ledger_entry" VALUES(15,1,5,'refund',5000000.0,'2026-11-26 19:02:53.200671');
INSERT INTO "ledger_entry" VALUES(16,1,6,'reserve',10000000.0,'2026-11-26 19:02:53.204090');
CREATE TABLE nas_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nas_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nas_alembic_version" VALUES('0003');
CREATE TABLE run (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_run PRIMARY KEY (id), 
	CONSTRAINT fk_run_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
	CONSTRAINT uq_run_trial_id_seed UNIQUE (trial_id, seed)
);
INSERT INTO "run" VALUES(1,1,5,'2026-11-26 19:02:53.133515');
INSERT INTO "run" VALUES(2,1,6,'2026-11-26 19:02:53.175022');
INSERT INTO "run" VALUES(3,2,5,'2026-11-26 19:02:53.184966');
INSERT INTO "run" VALUES(4,3,5,'2026-11-26 19:02:53.190396');
INSERT INTO "run" VALUES(5,4,5,'2026-11-26 19:02:53.202151');
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
	ended_at DATETIME, uid VARCHAR(32) DEFAULT '' NOT NULL, rungs INTEGER DEFAULT '1' NOT NULL, deviation DOUBLE, spent_flops DOUBLE DEFAULT '0' NOT NULL, owner TEXT DEFAULT '' NOT NULL, owner_since DATETIME, lease_until DOUBLE DEFAULT '0' NOT NULL, fence BIGINT DEFAULT '0' NOT NULL, asked VARCHAR(16) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'rungs','{"name": "rungs", "budget": {"trials": 3, "trial_flops": 30000000.0, "rungs": 2}}',5,200000000.0,'["bits_per_byte", "active_flops"]','running','{"ngram_bits_per_byte": {"3": 2.5}}',4,'2026-11-26 19:02:53.085942',NULL,'a8cc96a94b7d469d9de4107d2f30bc9e',2,1.41421356237309628345e-02,41500000.0,'me','2026-11-26 19:02:53.123579',1.79571983312698960303e+09,1,'');
INSERT INTO "study" VALUES(2,'empty','{"name": "empty"}',0,100000000.0,'["bits_per_byte"]','running','{}',0,'2026-11-26 19:02:53.118895',NULL,'0db0811d66974dfaa6b9039f8f6fd4cf',1,NULL,0.0,'',NULL,0.0,0,'');
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	spec JSON NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	params JSON NOT NULL, 
	source TEXT NOT NULL, 
	cost JSON NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	created_at DATETIME NOT NULL, 
	ended_at DATETIME, rung INTEGER, seeds INTEGER DEFAULT '0' NOT NULL, bits_per_byte DOUBLE, active_flops DOUBLE, flops DOUBLE DEFAULT '0' NOT NULL, evaluation_id INTEGER, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_study_id_study FOREIGN KEY(study_id) REFERENCES study (id) ON DELETE CASCADE, 
	CONSTRAINT uq_trial_study_id_number UNIQUE (study_id, number)
);
INSERT INTO "trial" VALUES(1,1,0,'{"d_ff": 64, "expert_width": 64, "depth": 1, "activation": "gelu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','45fe608e8ec0ab34','{"k": 2}','sampler','{"active_flops": 1000.0}','finished','2026-11-26 19:02:53.133515','2026-11-26 19:02:53.172926',1,2,2.26,1000.0,31500000.0,2);
INSERT INTO "trial" VALUES(2,1,1,'{"d_ff": 512, "expert_width": 64, "depth": 1, "activation": "relu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "topk", "k": 2, "gate": "softmax", "normalize": false, "balance_weight": 0.0, "z_weight": 0.0, "entropy_weight": 0.0, "bias_rate": 0.0}}','6e27afc4ff898fac','{"k": 2}','sampler','{"active_flops": 1000.0}','diverged','2026-11-26 19:02:53.184966','2026-11-26 19:02:53.188377',NULL,0,NULL,NULL,5000000.0,4);
INSERT INTO "trial" VALUES(3,1,2,'{"d_ff": 32, "expert_width": 32, "depth": 1, "activation": "gelu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','cbc38ae1ed768c92','{"k": 2}','sampler','{"active_flops": 1000.0}','stopped','2026-11-26 19:02:53.190396','2026-11-26 19:02:53.196968',NULL,0,NULL,NULL,5000000.0,5);
INSERT INTO "trial" VALUES(4,1,3,'{"d_ff": 128, "expert_width": 128, "depth": 1, "activation": "gelu", "gated": false, "shared_width": 0, "output_gate": false, "lr_multiplier": 1.0, "selection": {"method": "dense"}}','00ed2e93ebccd9c5','{"k": 2}','sampler','{"active_flops": 1000.0}','running','2026-11-26 19:02:53.202151',NULL,NULL,0,NULL,NULL,0.0,NULL);
CREATE INDEX ix_trial_study_id_key ON trial (study_id, "key");
CREATE UNIQUE INDEX ix_study_uid ON study (uid);
CREATE INDEX ix_trial_study_id_seeds ON trial (study_id, seeds);
CREATE INDEX ix_evaluation_study_id_status ON evaluation (study_id, status);
CREATE INDEX ix_ledger_entry_study_id ON ledger_entry (study_id);
COMMIT;
