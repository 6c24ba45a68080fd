"""What folders and cells are called that divide pictures, in the spellings and languages that people use."""

import unicodedata

import pytest

from cl_complora.data.split_names import role_of

NAMES = {
    "train": "Train TRAINING train_images seg_train 01_train train_v2 Trainingsdaten entraînement"
    " entrenamiento treino обучение 训练集 訓練 学習データ 훈련",
    "test": "Test testing images.test 02-test test_v1 prueba Prova teste тест 测试集 テスト 테스트",
    "validation": "val Valid dev Validierung validación validação validazione 验证集 検証",
}


@pytest.mark.parametrize(
    ("role", "name"), [(r, name) for r, names in NAMES.items() for name in names.split()]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_splits_are_recognised(role, name, form):
    assert role_of(unicodedata.normalize(form, name)) == role


@pytest.mark.parametrize(
    "name", ["cat", "trainer", "steam train", "contest", "valley", "42", "集", "data", "v2"]
)
def test_classes_are_no_splits(name):
    assert role_of(name) is None
