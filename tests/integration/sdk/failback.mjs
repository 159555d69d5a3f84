// Whole failbacks by Microsoft's public SDK, as existing automation would write them. argv: a scenario and its arguments; the last line of
// stdout is JSON: what the SDK returned. Environment: BACKHAUL_SDK (where node_modules lies), BACKHAUL_API, BACKHAUL_TOKEN, and for TLS
// NODE_EXTRA_CA_CERTS.
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.BACKHAUL_SDK, "package.json"));
const { SiteRecoveryManagementClient } = require("@azure/arm-recoveryservices-siterecovery");

const credential = { getToken: async () => ({ token: process.env.BACKHAUL_TOKEN, expiresOnTimestamp: Date.now() + 3600e3 }) };
const client = new SiteRecoveryManagementClient(credential, "00000000-0000-0000-0000-000000000000", { endpoint: process.env.BACKHAUL_API });

const vault = ["lab", "any-group"];
const place = (item) => [...vault, "backhaul", "items", item];
const items = client.replicationProtectedItems;
const jobs = client.replicationJobs;
const plans = client.replicationRecoveryPlans;
const soon = { updateIntervalInMs: 100 };

async function collect(pages) {
  const all = [];
  for await (const one of pages) all.push(one);
  return all;
}
const lastPart = (id) => id.split("/").pop();
const currentJob = async (item) => {
  const found = await items.get(...place(item));
  return jobs.get(...vault, lastPart(found.properties.currentScenario.jobId));
};
const failoverInput = (direction, option, more = {}) => ({
  properties: {
    failoverDirection: direction,
    providerSpecificDetails: { instanceType: "HyperVReplicaAzureFailback", dataSyncOption: option, recoveryVmCreationOption: "NoAction", ...more },
  },
});
const brief = (job) => ({
  name: job.name, state: job.properties.state, allowedActions: job.properties.allowedActions, scenarioName: job.properties.scenarioName,
  tasks: job.properties.tasks.map((task) => [task.name, task.state]), targetObjectName: job.properties.targetObjectName,
});

const scenarios = {
  // Phase 1, Complete Failover, Commit, Reverse Replicate.
  async downtime(item) {
    const started = await items.beginPlannedFailoverAndWait(...place(item), failoverInput("RecoveryToPrimary", "ForDownTime"), soon);
    const waiting = await currentJob(item);
    await jobs.beginResumeAndWait(...vault, waiting.name, { properties: { comments: "Complete Failover" } }, soon);
    const completed = await jobs.get(...vault, waiting.name);
    const pending = await items.get(...place(item));
    const committed = await items.beginFailoverCommitAndWait(...place(item), soon);
    const reprotected = await items.beginReprotectAndWait(...place(item), {
      properties: { failoverDirection: "PrimaryToRecovery", providerSpecificDetails: { instanceType: "HyperVReplicaAzure" } },
    }, soon);
    return { started: started.properties, waiting: brief(waiting), completed: brief(completed), pending: pending.properties.protectionState,
             committed: committed.properties.protectionState, reprotected: reprotected.properties.protectionState };
  },
  // Everything in one call: the VM is off meanwhile.
  async synchronization(item) {
    const done = await items.beginPlannedFailoverAndWait(...place(item), failoverInput("RecoveryToPrimary", "ForSynchronization"), soon);
    const found = await collect(jobs.list(...vault, { filter: `ItemName eq '${item}' and JobStatus eq 'Succeeded'` }));
    return { done: done.properties, jobs: found.map(brief) };
  },
  // Cancelled by its job while it waits; then failed over again and undone before the commit.
  async cancel(item) {
    await items.beginPlannedFailoverAndWait(...place(item), failoverInput("RecoveryToPrimary", "ForDownTime"), soon);
    const waiting = await currentJob(item);
    await jobs.beginCancelAndWait(...vault, waiting.name, soon);
    const cancelled = await jobs.get(...vault, waiting.name);
    const after = await items.get(...place(item));
    return { cancelled: brief(cancelled), state: after.properties.protectionState };
  },
  async undo(item) {
    await items.beginPlannedFailoverAndWait(...place(item), failoverInput("RecoveryToPrimary", "ForSynchronization"), soon);
    const undone = await items.beginFailoverCancelAndWait(...place(item), soon);
    return { state: undone.properties.protectionState };
  },
  // A plan made, failed over, completed and committed.
  async plan(name, ...ids) {
    const group = (item) => ({ groupType: "Boot", replicationProtectedItems: [{ id: item }], startGroupActions: [], endGroupActions: [] });
    const made = await plans.beginCreateAndWait(...vault, name, {
      properties: { primaryFabricId: "backhaul", recoveryFabricId: "backhaul", failoverDeploymentModel: "NotApplicable", groups: ids.map(group) },
    }, soon);
    await plans.beginPlannedFailoverAndWait(...vault, name, {
      properties: { failoverDirection: "RecoveryToPrimary", providerSpecificDetails: [{ instanceType: "HyperVReplicaAzureFailback", dataSyncOption: "ForDownTime", recoveryVmCreationOption: "NoAction" }] },
    }, soon);
    const plan = await plans.get(...vault, name);
    const job = lastPart(plan.properties.currentScenario.jobId);
    const waiting = await jobs.get(...vault, job);
    await jobs.beginResumeAndWait(...vault, job, { properties: {} }, soon);
    const completed = await jobs.get(...vault, job);
    await plans.beginFailoverCommitAndWait(...vault, name, soon);
    const states = [];
    for (const item of ids) states.push((await items.get(...place(item))).properties.protectionState);
    return { made: made.properties.groups.length, waiting: brief(waiting), completed: brief(completed), states };
  },
  async jobs(filter) {
    return { jobs: (await collect(jobs.list(...vault, filter ? { filter } : {}))).map(brief) };
  },
  // What automation sees of a refusal: the SDK's RestError.
  async refusedCommit(item) {
    try {
      await items.beginFailoverCommitAndWait(...place(item), soon);
    } catch (error) {
      return { status: error.statusCode, code: error.code, message: error.message };
    }
    return { status: 200 };
  },
};

const [name, ...words] = process.argv.slice(2);
console.log(JSON.stringify(await scenarios[name](...words)));
