-- What a task needs of its agent: a word of job::executor::ExecutorKind.
ALTER TABLE tasks ADD COLUMN executor TEXT NOT NULL DEFAULT 'docker';
-- 1: it asks for a virtual machine beside its containers.
ALTER TABLE tasks ADD COLUMN beside BIGINT NOT NULL DEFAULT 0;
-- No text within the claim looks like this: its quotes would have backslashes.
UPDATE tasks SET executor = 'machine' WHERE state = 'queued' AND claim LIKE '%"executor":{"kind":"machine"%';

-- What runners have asked for lately: for people alone, who want to know why a task waits.
CREATE TABLE offers (
  agent TEXT NOT NULL, class TEXT NOT NULL, executor TEXT NOT NULL, seen_ms BIGINT NOT NULL,
  PRIMARY KEY (agent, class, executor)
);
