// From upload to download with the client that openapi-generator generates for TypeScript's fetch.
import { ArtifactApi, Configuration, DatasetsApi, JobsApi, JobStatus, type Problem, ProblemFromJSON, ResponseError } from "./typescript_fetch";
import { baseModel, digest, file, key, name, pause, report, url } from "./seen";

const configuration = new Configuration({ basePath: url, accessToken: key });
const datasets = new DatasetsApi(configuration);
const jobs = new JobsApi(configuration);
const artifacts = new ArtifactApi(configuration);

async function refusal(asked: Promise<unknown>): Promise<Problem> {
  try {
    await asked;
  } catch (error) {
    if (error instanceof ResponseError) return ProblemFromJSON(await error.response.json());
    throw error;
  }
  throw new Error("it was not refused");
}

const dataset = await datasets.createDataset({ file, name: "mine", metadata: '{"team": "a"}' });
const raw = await datasets.createDatasetFromBody({ body: file, name: "raw" });
if (raw.sha256 !== dataset.sha256) throw new Error("the raw body came otherwise");
let job = await jobs.submitJob({ jobRequest: { baseModel, datasetId: dataset.id, sft: { epochs: 2 }, metadata: { by: name } } });
while (job.status !== JobStatus.Succeeded) {
  await pause();
  job = await jobs.getJob({ jobId: job.id });
}
const page = await jobs.getJobMetrics({ jobId: job.id });
const table = await jobs.getJobMetricsCsv({ jobId: job.id });
const mine = await jobs.listJobs({ metadata: [`by:${name}`] });
const artifact = await artifacts.getArtifact({ jobId: job.id });
const first = await artifacts.getArtifactFile({ jobId: job.id, path: artifact.files[0]!.path });
const archive = await artifacts.getArtifactArchive({ jobId: job.id });
const missing = await refusal(jobs.getJob({ jobId: "job_none" }));
const invalid = await refusal(jobs.submitJob({ jobRequest: { baseModel: "none", datasetId: "none" } }));
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
