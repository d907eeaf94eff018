"""Files of tests that came with what was built after the house was re-arranged: its twelve minutes are without them.

Only files that are wholly about it are named: what later tests added to earlier files counts as if it had been there.
"""

NAMES = {
    "OpenAI's clients": "e2e/test_openai_",
    "dashboard, command line and documents, for people and for generators of clients": """
        clients/ e2e/test_dashboard_form e2e/test_dashboard_job e2e/test_dashboard_data e2e/test_docs_page
        e2e/test_python_client_page contract/test_job_lists unit/cli/test_listing architecture/test_client_shapes
        architecture/test_errors_page architecture/test_examples""",
    "chats, arenas, feedback, versions of datasets": """
        contract/test_chat_answers contract/test_arenas contract/test_feedback contract/test_runner_files
        contract/test_dataset_versions contract/test_dataset_changes e2e/test_api_dataset_versions
        e2e/test_api_feedback e2e/test_cli_answers e2e/test_vllm_runner e2e/test_try_it e2e/test_dashboard_play
        e2e/test_dashboard_arena e2e/test_dashboard_versions e2e/test_vote_kills faults/test_chat_kills
        integration/test_chat_equality integration/test_runner_on_demand integration/test_generation_process
        unit/api/test_arena_leases unit/api/test_many_answers unit/worker/test_model_pool
        unit/worker/test_runner_server unit/worker/test_sampling""",
    "common prefixes, micro-batches side by side": """
        numerics/test_forest numerics/test_side_by_side unit/worker/test_busy_machine""",
    "backups, several API processes, proxies": """
        contract/test_backups contract/test_roster contract/test_shared_rates deploy/ e2e/test_api_workers
        e2e/test_root_path e2e/test_way_in integration/test_restore_drill""",
    "rewards, generations, judgements, rounds": """
        contract/test_generations contract/test_judg contract/test_rounds e2e/test_api_judging e2e/test_api_rounds
        e2e/test_dashboard_judging e2e/test_dashboard_rounds faults/test_rounds_kills
        integration/test_worker_generations integration/test_worker_reward integration/test_worker_rounds
        numerics/test_fixed_batches numerics/test_reward numerics/test_trl_reward_parity unit/domain/test_pairing
        unit/domain/test_reward_ unit/domain/test_rounds unit/domain/test_win_rates unit/training/test_calibration
        unit/worker/test_reward_judge unit/worker/test_rule_judge""",
    "sweeps, comparisons, estimates, the frontier": """
        contract/test_estimates contract/test_sweep_halving contract/test_sweeps e2e/test_api_comparisons
        e2e/test_api_sweeps e2e/test_dashboard_comparison e2e/test_dashboard_sweeps faults/test_sweep_kills
        integration/test_worker_halving numerics/test_frontier unit/cli/test_estimates unit/domain/test_comparisons
        unit/domain/test_estimates unit/services/test_comparison_choice unit/training/test_estimated_work""",
    "jobs over several hosts": """
        architecture/test_node_files contract/test_gangs faults/test_nodes integration/test_launcher
        integration/test_meeting integration/test_worker_nodes nodes/ numerics/test_sharded_checkpoints
        unit/worker/test_device_group unit/worker/test_network""",
}
"""What each begins with, below `tests`."""
LATER = tuple(name for names in NAMES.values() for name in names.split())
