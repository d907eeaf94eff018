// From upload to download with the fetch client of orval.
import {
  createDataset,
  createDatasetFromBody,
  getArtifact,
  getArtifactArchive,
  getArtifactFile,
  getJob,
  getJobMetrics,
  getJobMetricsCsv,
  listJobs,
  submitJob,
} from "./orval";
import { baseModel, digest, file, key, name, pause, report } from "./seen";

const options = { headers: { Authorization: `Bearer ${key}` } };

function ok<Answer extends { status: number; data: unknown }, Status extends Answer["status"]>(
  answer: Answer,
  status: Status,
): Extract<Answer, { status: Status }>["data"] {
  if (answer.status !== status) throw new Error(`${answer.status}: ${JSON.stringify(answer.data)}`);
  return answer.data as Extract<Answer, { status: Status }>["data"];
}

const dataset = ok(await createDataset({ file, name: "mine", metadata: '{"team": "a"}' }, options), 201);
const raw = ok(await createDatasetFromBody(file, { name: "raw" }, options), 201);
if (raw.sha256 !== dataset.sha256) throw new Error("the raw body came otherwise");
const asked = { base_model: baseModel, dataset_id: dataset.id, sft: { epochs: 2 }, metadata: { by: name } };
let job = ok(await submitJob(asked, options), 201);
while (job.status !== "succeeded") {
  await pause();
  job = ok(await getJob(job.id, options), 200);
}
const page = ok(await getJobMetrics(job.id, undefined, options), 200);
const table = ok(await getJobMetricsCsv(job.id, undefined, options), 200);
const mine = ok(await listJobs({ metadata: [`by:${name}`] }, options), 200);
const artifact = ok(await getArtifact(job.id, options), 200);
const first = ok(await getArtifactFile(job.id, artifact.files[0]!.path, undefined, options), 200);
const archive = ok(await getArtifactArchive(job.id, options), 200);
const missing = ok(await getJob("job_none", options), 404);
const invalid = ok(await submitJob({ base_model: "none", dataset_id: "none" }, options), 422);
report({
  dataset: dataset.id,
  job: job.id,
  steps: page.points.map((point) => point.step),
  lines: table.trim().split("\n").length,
  found: mine.data.map((each) => each.id),
  sha256: await digest(first),
  archive: archive.size,
  missing: missing.code,
  invalid: (invalid.errors ?? []).map((error) => error.pointer),
});
